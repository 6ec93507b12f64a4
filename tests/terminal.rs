//! What a person sees who looks on: progress on the terminal, and the log above it.

use std::time::Duration;

use crate::support::bank::Bank;
use crate::support::postgres::PostgresServer;
use crate::support::terminal::Terminal;

const PATIENCE: Duration = Duration::from_secs(60);

/// The first line of what is drawn; the table has one below it.
const FIRST: &str = "bank: copying: ";

fn is_progress(line: &str) -> bool {
    line.contains(FIRST) || line.contains("  public.large: ")
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_drawn_below_the_log_and_is_gone_at_the_end() {
    let sql =
        "CREATE TABLE large (id int PRIMARY KEY, v text); INSERT INTO large SELECT i, repeat('x', 1000) FROM generate_series(1, 24000) i";
    let bank = Bank::new(PostgresServer::shared(), "terminal", sql, "create = true\nfollow = [\"public.*\"]").await;
    let proxy = bank.behind_proxy().await;
    let config = bank.config.to_str().expect("a path in UTF-8");
    for at_once in [true, false] {
        // A line of some 1.5 MB a second and connection: there is time to look.
        proxy.delay(Duration::from_millis(40));
        let (terminal, theirs) = Terminal::open();
        let mut program = bank.site.start_with("service", &["run", "--config", config], |command| {
            command.stderr(theirs).env("TERM", "xterm").env("NO_COLOR", "1");
        });
        let drawn = || terminal.screen().lines.iter().any(|line| is_progress(line)).then_some(());
        program.until("progress is drawn", PATIENCE, drawn).await;
        if at_once {
            // Both are there when it goes on: the second is seen before the first has led to anything.
            program.signal(libc::SIGSTOP);
            program.signal(libc::SIGTERM);
            program.signal(libc::SIGINT);
            program.signal(libc::SIGCONT);
        } else {
            program.signal(libc::SIGTERM);
            proxy.delay(Duration::ZERO);
        }
        let exit = program.wait(PATIENCE).await;
        let screen = terminal.end();
        let expected: &[i32] = if at_once { &[130, 143] } else { &[0] };
        assert!(
            exit.status.code().is_some_and(|code| expected.contains(&code)),
            "{}: {screen:?}",
            exit.status
        );
        // Each line is one of the log, whole: it begins with its time.
        for line in screen.lines.iter().filter(|line| !line.is_empty()) {
            assert!(
                line.starts_with("20") && (line.contains("Z  INFO ") || line.contains("Z  WARN ")),
                "{line}: {screen:?}"
            );
        }
        for (_, line) in &screen.erased {
            assert!(line.is_empty() || is_progress(line), "{line} was erased: {screen:?}");
        }
        // Where this stands progress stood before, and then it stood below.
        let told = screen
            .lines
            .iter()
            .position(|line| line.contains("stopping: publishing what is staged"));
        let told = told.unwrap_or_else(|| panic!("it does not say that it stops: {screen:?}"));
        for row in [told, told + 1] {
            assert!(
                screen.erased.iter().any(|(at, line)| *at == row && line.contains(FIRST)),
                "no progress at line {row}: {screen:?}"
            );
        }
    }
}
