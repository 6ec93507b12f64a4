//! A strict reader of JSON text, as RFC 8259 has it, that hands out the pieces and keeps nothing.
//!
//! Readers that people use by habit take more than JSON: missing commas, `01`, two objects in one message, lone surrogates. Each of
//! those is a message whose writer is broken, and a guess at what it meant would become history. So nothing is taken here that the
//! standard refuses; also in the parts of a message that no column reads.

use super::fault::{Code, Fault, Read};
use super::text::{Text, plain_run};

/// Deepest nesting that is followed: as deep as serde_json goes, so what others can read can be read here.
const DEPTH_MAX: usize = 128;

/// A place in one JSON text.
#[derive(Clone, Debug)]
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes lie behind.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next byte that is no white space, or 0 at the end: a 0 in the text is as wrong as the end, wherever it stands.
    #[inline]
    pub fn peek(&mut self) -> u8 {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(&byte) => return byte,
                None => return 0,
            }
        }
    }

    /// Steps over the byte that `peek` has just shown.
    #[inline]
    pub fn step(&mut self) {
        self.at += 1;
    }

    /// Steps over `token` if it stands right here.
    #[inline]
    pub fn take(&mut self, token: &[u8]) -> bool {
        let here = self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(token));
        if here {
            self.at += token.len();
        }
        here
    }

    #[inline]
    pub fn expect(&mut self, byte: u8, what: &'static str) -> Read {
        if self.peek() != byte {
            return Err(Fault::malformed(what));
        }
        self.step();
        Ok(())
    }

    /// Steps into an object or an array.
    #[inline]
    pub fn open(&mut self, bracket: u8, expected: &'static str) -> Read {
        if self.peek() != bracket {
            return Err(self.other(expected));
        }
        self.step();
        Ok(())
    }

    /// Whether it ends right where it began.
    #[inline]
    pub fn closes(&mut self, bracket: u8) -> bool {
        let closes = self.peek() == bracket;
        if closes {
            self.step();
        }
        closes
    }

    /// After a member or an element: true if another follows, false if `close` ends it.
    #[inline]
    pub fn more(&mut self, close: u8) -> Read<bool> {
        let next = self.peek();
        self.step();
        match next {
            b',' => Ok(true),
            byte if byte == close => Ok(false),
            _ => Err(Fault::malformed("a comma or the end of an object or array is expected")),
        }
    }

    /// That nothing but white space is left.
    pub fn end(&mut self) -> Read {
        self.peek();
        match self.at < self.bytes.len() {
            true => Err(Fault::malformed("more follows the first JSON value")),
            false => Ok(()),
        }
    }

    /// A null, if one is next.
    #[inline]
    pub fn null(&mut self) -> Read<bool> {
        match self.peek() {
            b'n' => self.literal(b"null").map(|()| true),
            _ => Ok(false),
        }
    }

    #[inline]
    pub fn literal(&mut self, word: &'static [u8]) -> Read {
        match self.take(word) {
            true => Ok(()),
            false => Err(Fault::malformed("not a JSON value")),
        }
    }

    pub fn boolean(&mut self) -> Read<bool> {
        match self.peek() {
            b't' => self.literal(b"true").map(|()| true),
            b'f' => self.literal(b"false").map(|()| false),
            _ => Err(self.other("true or false is expected")),
        }
    }

    /// An integer of 64 bits.
    #[inline]
    pub fn integer(&mut self) -> Read<i64> {
        let negative = self.peek() == b'-';
        let start = self.at + usize::from(negative);
        let mut at = start;
        let mut magnitude = 0u64;
        while let Some(digit) = self.bytes.get(at).map(|b| b.wrapping_sub(b'0')).filter(|d| *d <= 9) {
            let next = magnitude.checked_mul(10).and_then(|m| m.checked_add(u64::from(digit)));
            magnitude = next.ok_or_else(|| Fault::range("the number does not fit into 64 bits"))?;
            at += 1;
        }
        let plain = at > start && (at == start + 1 || self.bytes.get(start) != Some(&b'0'));
        if !plain || matches!(self.bytes.get(at), Some(b'.' | b'e' | b'E')) {
            return Err(match self.peek() {
                b'-' | b'0'..=b'9' => self.number().map_or_else(
                    |fault| fault,
                    |_| Fault::mismatch("an integer is expected, not a fraction or exponent"),
                ),
                _ => self.other("an integer is expected"),
            });
        }
        self.at = at;
        let fits = if negative { magnitude <= 1 << 63 } else { magnitude < 1 << 63 };
        match fits {
            true if negative => Ok((magnitude as i64).wrapping_neg()),
            true => Ok(magnitude as i64),
            false => Err(Fault::range("the number does not fit into 64 bits")),
        }
    }

    /// A number of any form, as it is written.
    #[inline]
    pub fn number(&mut self) -> Read<&'a str> {
        if !matches!(self.peek(), b'-' | b'0'..=b'9') {
            return Err(self.other("a number is expected"));
        }
        let start = self.at;
        self.take(b"-");
        let first = self.at;
        let whole = self.digits();
        if whole == 0 || (whole > 1 && self.bytes.get(first) == Some(&b'0')) {
            return Err(Fault::malformed("not a JSON number"));
        }
        if self.take(b".") && self.digits() == 0 {
            return Err(Fault::malformed("not a JSON number"));
        }
        if self.take(b"e") || self.take(b"E") {
            let _signed = self.take(b"+") || self.take(b"-");
            if self.digits() == 0 {
                return Err(Fault::malformed("not a JSON number"));
            }
        }
        let text = self.bytes.get(start..self.at).and_then(|t| std::str::from_utf8(t).ok());
        Ok(text.expect("digits, signs, points and exponents are ASCII"))
    }

    #[inline]
    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        self.at - start
    }

    /// A string.
    #[inline]
    pub fn string(&mut self) -> Read<Text<'a>> {
        if self.peek() != b'"' {
            return Err(self.other("text is expected"));
        }
        self.step();
        self.rest_of_string()
    }

    /// From behind the opening quote to behind the closing one.
    fn rest_of_string(&mut self) -> Read<Text<'a>> {
        let start = self.at;
        let (mut escaped, mut ascii) = (false, true);
        loop {
            let (step, non_ascii) = plain_run(self.bytes.get(self.at..).unwrap_or_default());
            self.at += step;
            ascii &= !non_ascii;
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    let raw = self.bytes.get(start..self.at).unwrap_or_default();
                    self.at += 1;
                    return Ok(Text { raw, escaped, ascii });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.at += 2;
                }
                Some(_) => return Err(Fault::malformed("a control character in a string")),
                None => return Err(Fault::malformed("the text ends within a string")),
            }
        }
    }

    /// Steps over a value of any kind, and returns its text.
    pub fn skip(&mut self) -> Read<&'a [u8]> {
        self.peek();
        let start = self.at;
        self.skip_value(0)?;
        Ok(self.bytes.get(start..self.at).unwrap_or_default())
    }

    fn skip_value(&mut self, depth: usize) -> Read {
        if depth > DEPTH_MAX {
            return Err(Fault::new(Code::TooDeep, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        match self.peek() {
            b'"' => self.string()?.check(),
            b'{' => {
                self.step();
                let mut more = !self.closes(b'}');
                while more {
                    self.key()?.check()?;
                    self.skip_value(depth + 1)?;
                    more = self.more(b'}')?;
                }
                Ok(())
            }
            b'[' => {
                self.step();
                let mut more = !self.closes(b']');
                while more {
                    self.skip_value(depth + 1)?;
                    more = self.more(b']')?;
                }
                Ok(())
            }
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => self.number().map(|_| ()),
        }
    }

    /// The name of a member, and its colon.
    pub fn key(&mut self) -> Read<Text<'a>> {
        if self.peek() != b'"' {
            return Err(Fault::malformed("the name of a member is expected"));
        }
        let name = self.string()?;
        self.expect(b':', "a colon is expected")?;
        Ok(name)
    }

    /// What is wrong here, where the message should be one object.
    #[cold]
    pub fn not_an_object(&mut self) -> Box<Fault> {
        match self.skip() {
            Ok(_) => Fault::new(Code::Unexpected, "the value is JSON, but no object"),
            Err(fault) => fault,
        }
    }

    /// What is wrong here, where a value of another kind is expected: another kind of value, or no value at all.
    #[cold]
    pub fn other(&mut self, expected: &'static str) -> Box<Fault> {
        match self.peek() {
            b'"' | b'{' | b'[' | b't' | b'f' | b'n' | b'-' | b'0'..=b'9' => Fault::mismatch(expected),
            0 => Fault::malformed("the text ends too early"),
            _ => Fault::malformed("not a JSON value"),
        }
    }
}
