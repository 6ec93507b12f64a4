//! Names of a database's tables as patterns, in which `*` stands for any characters.

/// Whether the pattern takes this name.
pub fn matches(pattern: &str, name: &str) -> bool {
    // A name is a pattern that takes itself alone; of a star within it that is true of a character that no name has.
    overlap(pattern, &name.replace('*', "\0"))
}

/// Whether it is a pattern and no name.
pub fn is_pattern(text: &str) -> bool {
    text.contains('*')
}

/// Whether there is a name that both patterns take.
pub fn overlap(one: &str, other: &str) -> bool {
    let other: Vec<char> = other.chars().collect();
    // For each beginning of the other: whether it and what was seen of the one take a name.
    let mut row: Vec<bool> = (0..=other.len())
        .map(|end| other[..end].iter().all(|letter| *letter == '*'))
        .collect();
    for letter in one.chars() {
        let mut next = vec![letter == '*' && row[0]];
        for (place, own) in other.iter().enumerate() {
            let both = match letter == '*' || *own == '*' {
                true => row[place + 1] || next[place] || row[place],
                false => row[place] && letter == *own,
            };
            next.push(both);
        }
        row = next;
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        let cases = [
            ("orders", "orders", true),
            ("orders", "orders2", false),
            ("*", "anything", true),
            ("*", "", true),
            ("ord*", "orders", true),
            ("*ers", "orders", true),
            ("*ers", "ersatz", false),
            ("o*d*s", "orders", true),
            ("o*x*s", "orders", false),
            ("a*a", "a", false),
            ("*a*a", "aba", true),
            ("ab", "a*", false),
            ("a*", "a*b", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn patterns_overlap_where_a_name_is_taken_by_both() {
        let cases = [
            ("*", "orders", true),
            ("a*", "*b", true),
            ("a*c", "ab*", true),
            ("a*", "b*", false),
            ("*ab*", "a", false),
            ("a", "a", true),
            ("a", "ab", false),
        ];
        for (one, other, expected) in cases {
            assert_eq!(overlap(one, other), expected, "{one} {other}");
            assert_eq!(overlap(other, one), expected, "{other} {one}");
        }
    }
}
