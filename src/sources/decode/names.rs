//! Which column a member's name means.
//!
//! Writers repeat themselves: the member that followed another one in the last message follows it in this one. So the guess is tried
//! first, with one comparison of bytes, and only a wrong guess costs a look-up.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::fault::Read;
use super::scanner::Scanner;

#[derive(Clone, Debug)]
pub(super) struct Names {
    /// `"name":` of each column, and the column; empty where a name can be written in several ways.
    tokens: Vec<(Vec<u8>, usize)>,
    /// By place in `tokens`.
    places: HashMap<Vec<u8>, usize>,
    /// What followed last time, by place; at 0 what came first, and by one higher the rest.
    next: Vec<usize>,
    scratch: Vec<u8>,
    /// Names that mean columns which are read elsewhere.
    elsewhere: HashSet<Vec<u8>>,
    /// Members whose names mean no column.
    unknown: u64,
}

impl Names {
    /// Names and the columns that they mean; of equal names the first.
    pub fn new<'a>(columns: impl IntoIterator<Item = (&'a str, usize)>) -> Self {
        let mut tokens = Vec::new();
        let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
        for (name, column) in columns {
            let Entry::Vacant(place) = places.entry(name.as_bytes().to_vec()) else {
                continue;
            };
            place.insert(tokens.len());
            // A space within the token would be fine for JSON and never equal: such writers take the slower way.
            let plain = name.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\');
            tokens.push((if plain { format!("\"{name}\":").into_bytes() } else { Vec::new() }, column));
        }
        let next = (0..=tokens.len()).collect();
        Self {
            tokens,
            places,
            next,
            scratch: Vec::new(),
            elsewhere: HashSet::new(),
            unknown: 0,
        }
    }

    /// These mean columns, too, which are not read here.
    pub fn and_elsewhere<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.elsewhere = names.into_iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// How many members had names that mean no column, since this was asked last.
    pub fn take_unknown(&mut self) -> u64 {
        std::mem::take(&mut self.unknown)
    }

    /// Reads a member's name and its colon. `last` is the caller's memory within one object; it starts at 0.
    #[inline]
    pub fn find(&mut self, scanner: &mut Scanner<'_>, last: &mut usize) -> Read<Option<usize>> {
        scanner.peek();
        let guess = self.next[*last];
        if let Some((token, column)) = self.tokens.get(guess)
            && !token.is_empty()
            && scanner.take(token)
        {
            *last = guess + 1;
            return Ok(Some(*column));
        }
        self.look_up(scanner, last)
    }

    fn look_up(&mut self, scanner: &mut Scanner<'_>, last: &mut usize) -> Read<Option<usize>> {
        let name = scanner.key()?;
        let name = name.read(&mut self.scratch)?;
        let Some(&place) = self.places.get(name) else {
            self.unknown += u64::from(!self.elsewhere.contains(name));
            return Ok(None);
        };
        self.next[*last] = place;
        *last = place + 1;
        Ok(Some(self.tokens[place].1))
    }
}
