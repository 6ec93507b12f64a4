//! The folder of the demo, with all that is needed to look at its tables afterwards.

use std::fs;
use std::path::{Path, PathBuf};

use super::changes::SCHEMA;
use crate::error::{Error, Result};

/// Tells a folder of the demo from one with somebody's files.
const MARKER: &str = ".alluvium-demo";

/// Makes the folder, or empties one of an earlier demo. Any other folder with files in it is refused.
pub(super) fn prepare(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).map_err(|e| cannot(path, "be used").because(e))?;
    let mut entries = fs::read_dir(&path).into_iter().flatten();
    if path.join(MARKER).is_file() {
        fs::remove_dir_all(&path).map_err(|e| cannot(&path, "be emptied").because(e))?;
    } else if entries.next().is_some() {
        let what = format!(
            "the folder {} is not empty, and not one of a demo: choose another with --path",
            path.display()
        );
        return Err(Error::config("cannot_create", what));
    }
    fs::create_dir_all(&path).map_err(|e| cannot(&path, "be made").because(e))?;
    write(
        &path,
        MARKER,
        "made by `alluvium demo`, which empties this folder when it runs again\n",
    )?;
    write(&path, "orders.avsc", SCHEMA)?;
    Ok(path)
}

/// Writes the configuration, and returns its place.
pub(super) fn configure(path: &Path, text: &str) -> Result<PathBuf> {
    write(path, "demo.toml", text)
}

fn write(path: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let file = path.join(name);
    fs::write(&file, text).map_err(|e| cannot(&file, "be written").because(e))?;
    Ok(file)
}

fn cannot(path: &Path, what: &str) -> Error {
    Error::config(
        "cannot_create",
        format!("{} cannot {what}: choose another place with --path", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_folder_or_one_of_a_demo_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = prepare(folder.path()).unwrap();
        fs::write(path.join("old"), "x").unwrap();
        prepare(&path).unwrap();
        assert!(!path.join("old").exists());

        fs::remove_file(path.join(MARKER)).unwrap();
        let refused = prepare(&path).unwrap_err();
        assert_eq!(refused.exit_code(), 73);
        assert!(path.join("orders.avsc").exists(), "files of somebody else stay");
    }
}
