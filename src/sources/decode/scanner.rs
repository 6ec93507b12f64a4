//! A strict reader of JSON text, as RFC 8259 has it, that hands out the pieces and keeps nothing.
//!
//! Readers that people use by habit take more than JSON: missing commas, `01`, two objects in one message, lone surrogates. Each of
//! those is a message whose writer is broken, and a guess at what it meant would become history. So nothing is taken here that the
//! standard refuses; also in the parts of a message that no column reads.

use super::fault::{Code, Fault, Read};

/// Deepest nesting that is followed: as deep as serde_json goes, so what others can read can be read here.
const DEPTH_MAX: usize = 128;

/// A place in one JSON text.
#[derive(Clone, Debug)]
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What stands between two quotes, not yet unescaped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a> {
    raw: &'a [u8],
    escaped: bool,
    ascii: bool,
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
        if self.take(b".") {
            if self.digits() == 0 {
                return Err(Fault::malformed("not a JSON number"));
            }
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

/// How many bytes stand before the first quote, backslash or control character; and whether some byte near them is not ASCII (a
/// neighbour behind the end may raise the alarm for nothing, which costs a check and no more).
#[inline]
fn plain_run(bytes: &[u8]) -> (usize, bool) {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    // The classic zero-byte trick: borrows run upwards only, so the lowest flag is always a true one.
    let zero = |x: u64| x.wrapping_sub(ONES) & !x & HIGHS;
    let mut seen = 0u64;
    let mut at = 0;
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        seen |= word;
        let control = word.wrapping_sub(ONES.wrapping_mul(0x20)) & !word & HIGHS;
        let hit = zero(word ^ ONES.wrapping_mul(u64::from(b'"'))) | zero(word ^ ONES.wrapping_mul(u64::from(b'\\'))) | control;
        if hit != 0 {
            return (at + (hit.trailing_zeros() / 8) as usize, seen & HIGHS != 0);
        }
        at += 8;
    }
    let run = tail.iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20).unwrap_or(tail.len());
    (at + run, seen & HIGHS != 0 || !tail.is_ascii())
}

impl<'a> Text<'a> {
    /// Appends what the text says.
    #[inline]
    pub fn append_to(&self, out: &mut Vec<u8>) -> Read {
        if !self.ascii && std::str::from_utf8(self.raw).is_err() {
            return Err(Fault::malformed("not UTF-8"));
        }
        match self.escaped {
            false => out.extend_from_slice(self.raw),
            true => unescape(self.raw, |part| out.extend_from_slice(part))?,
        }
        Ok(())
    }

    /// What the text says, in `scratch` if it has to be unescaped.
    pub fn read<'b>(&self, scratch: &'b mut Vec<u8>) -> Read<&'b [u8]>
    where
        'a: 'b,
    {
        if !self.escaped && self.ascii {
            return Ok(self.raw);
        }
        scratch.clear();
        self.append_to(scratch)?;
        Ok(scratch)
    }

    /// That the text says something, without keeping it.
    #[inline]
    fn check(&self) -> Read {
        if !self.ascii && std::str::from_utf8(self.raw).is_err() {
            return Err(Fault::malformed("not UTF-8"));
        }
        match self.escaped {
            false => Ok(()),
            true => unescape(self.raw, |_| ()),
        }
    }
}

/// Hands the text's parts to `put`.
fn unescape(raw: &[u8], mut put: impl FnMut(&[u8])) -> Read {
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|&b| b == b'\\') {
        let (plain, escape) = rest.split_at(at);
        put(plain);
        let wrong = || Fault::malformed("an escape that JSON does not have");
        let (kind, behind) = escape.get(1..).and_then(<[u8]>::split_first).ok_or_else(wrong)?;
        rest = behind;
        let byte = match kind {
            b'"' | b'\\' | b'/' => *kind,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let (letter, behind) = unicode(rest)?;
                put(letter.encode_utf8(&mut [0; 4]).as_bytes());
                rest = behind;
                continue;
            }
            _ => return Err(wrong()),
        };
        put(&[byte]);
    }
    put(rest);
    Ok(())
}

/// The character behind a `\u`, of one escape or of a pair, and what follows.
fn unicode(text: &[u8]) -> Read<(char, &[u8])> {
    let half = |text: &[u8]| -> Option<u32> {
        let digits = text.get(..4).filter(|d| d.iter().all(u8::is_ascii_hexdigit))?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let wrong = || Fault::malformed("a \\u escape without four digits");
    let alone = || Fault::malformed("one half of a surrogate pair, which is no character");
    let first = half(text).ok_or_else(wrong)?;
    let rest = text.get(4..).unwrap_or_default();
    if let Some(letter) = char::from_u32(first) {
        return Ok((letter, rest));
    }
    let second = rest.strip_prefix(b"\\u").and_then(half).filter(|s| (0xDC00..0xE000).contains(s));
    let code = second
        .filter(|_| first < 0xDC00)
        .map(|s| 0x10000 + ((first - 0xD800) << 10) + (s - 0xDC00));
    let letter = code.and_then(char::from_u32).ok_or_else(alone)?;
    Ok((letter, rest.get(6..).unwrap_or_default()))
}
