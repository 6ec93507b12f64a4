//! Paths within the commands that the demo prints: whatever they are named, the commands can be copied into a shell.

/// A text as one word of a POSIX shell, in quotes where it needs them.
pub(super) fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@%=".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// A text as Python writes it, in double quotes.
pub(super) fn python(text: &str) -> String {
    // JSON's escapes are among Python's, and mean the same there.
    serde_json::Value::from(text).to_string()
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
        assert_eq!(python("it's \"x\" \\"), r#""it's \"x\" \\""#);
    }
}
