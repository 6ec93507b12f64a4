//! Words of a shell, within the commands that are printed: whatever things are named, the commands can be copied.

/// A text as one word of a POSIX shell, in quotes where it needs them.
pub fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@%=".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_a_word_as_it_was() {
        for text in [
            "plain/path-1.toml",
            "",
            "two words",
            "it's",
            "$HOME `id` \"x\" \\ *",
            "a\nb",
            "ü;&|",
        ] {
            let printed = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", word(text))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(printed.stdout).unwrap(), text);
        }
        assert_eq!(word("/tmp/demo"), "/tmp/demo");
    }
}
