//! What a JSON string says: its end, its escapes, and whether it is UTF-8.

use super::fault::{Fault, Read};

/// What stands between two quotes, not yet unescaped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a> {
    pub raw: &'a [u8],
    pub escaped: bool,
    /// False if some byte is not ASCII, or may not be.
    pub ascii: bool,
}

/// How many bytes stand before the first quote, backslash or control character; and whether some byte near them is not ASCII (a
/// neighbour behind the end may raise the alarm for nothing, which costs a check and no more).
#[inline]
pub(super) fn plain_run(bytes: &[u8]) -> (usize, bool) {
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
    pub fn check(&self) -> Read {
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
