//! What `make demo-postgres` runs.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::support::pgbench::TABLES;
use crate::support::program::Site;

#[tokio::test]
async fn the_demo_with_a_database_tells_its_story_and_its_sums_agree() {
    let site = Site::new();
    // The server's user must pass through it.
    std::fs::set_permissions(site.path(""), PermissionsExt::from_mode(0o755)).expect("the folder is ours");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/demo-postgres.sh");
    let mut story = site.start_other("story", script.to_str().expect("a path in UTF-8"), |command| {
        command.arg(env!("CARGO_BIN_EXE_alluvium"));
        command.env("SECONDS_OF_WORK", "4").env("TMPDIR", site.path(""));
    });
    let exit = story.wait(Duration::from_secs(400)).await;
    let told = story.log_text();
    assert!(exit.status.success(), "{}: {told}", exit.status);
    assert!(told.contains("| accounts ") && told.contains("The lake is at "), "{told}");
    for table in TABLES {
        let history = told
            .split(&format!("\npublic.{table}\n"))
            .nth(1)
            .and_then(|rest| rest.split("\n\n").next());
        assert!(history.is_some_and(|history| history.contains("alluvium_bank:")), "{table}: {told}");
    }
}
