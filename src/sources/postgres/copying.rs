//! COPY's binary form: a header, rows, a trailer. The values in it are those of pgoutput. Pure; the server may cut the bytes anywhere.
//!
//! See "Binary Format" of COPY in Postgres' manual.

/// Where in the bytes of a COPY we are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Header,
    Rows,
    Trailer,
}

/// Reads the bytes of one COPY.
#[derive(Debug, Default)]
pub struct CopyReader {
    place: Place,
    /// The beginning of a row whose end has not come yet.
    rest: Vec<u8>,
}

impl CopyReader {
    /// Hands each row of `columns` values that is whole to `each`. The error says what is not as it should be.
    pub fn take(&mut self, bytes: &[u8], columns: usize, mut each: impl FnMut(Values<'_>)) -> Result<(), &'static str> {
        if self.rest.is_empty() {
            let taken = self.parse(bytes, columns, &mut each)?;
            self.rest.extend_from_slice(&bytes[taken..]);
        } else {
            self.rest.extend_from_slice(bytes);
            let mut whole = std::mem::take(&mut self.rest);
            let taken = self.parse(&whole, columns, &mut each)?;
            whole.drain(..taken);
            self.rest = whole;
        }
        Ok(())
    }

    /// Whether the trailer was read, and nothing is left.
    pub fn is_at_its_end(&self) -> bool {
        self.place == Place::Trailer && self.rest.is_empty()
    }

    /// Takes all that is whole; the answer is how much that was.
    fn parse(&mut self, bytes: &[u8], columns: usize, each: &mut impl FnMut(Values<'_>)) -> Result<usize, &'static str> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let taken = match self.place {
                Place::Header => header(rest)?.inspect(|_| self.place = Place::Rows),
                Place::Rows => self.row(rest, columns, each)?,
                Place::Trailer if rest.is_empty() => None,
                Place::Trailer => return Err("bytes behind its end"),
            };
            match taken {
                Some(taken) => at += taken,
                None => return Ok(at),
            }
        }
    }

    /// One row; None where it is not whole.
    fn row(&mut self, bytes: &[u8], columns: usize, each: &mut impl FnMut(Values<'_>)) -> Result<Option<usize>, &'static str> {
        let Some((count, _)) = bytes.split_first_chunk::<2>() else {
            return Ok(None);
        };
        let count = i16::from_be_bytes(*count);
        if count == -1 {
            self.place = Place::Trailer;
            return Ok(Some(2));
        }
        if usize::try_from(count).ok() != Some(columns) {
            return Err("a row of another number of columns");
        }
        let Some(length) = row_length(bytes)? else { return Ok(None) };
        each(Values(&bytes[2..length]));
        Ok(Some(length))
    }
}

/// The values of one row, which is known to be whole; None is null.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a>(&'a [u8]);

impl<'a> Iterator for Values<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            self.0 = rest;
            return Some(None);
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(Some(value))
    }
}

/// The length of the header, or None where it is not whole.
fn header(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
    let fixed = SIGNATURE.len() + 8;
    if bytes.len() < fixed {
        return Ok(None);
    }
    if !bytes.starts_with(SIGNATURE) {
        return Err("no signature");
    }
    let extension = bytes[SIGNATURE.len() + 4..]
        .first_chunk()
        .map_or(0, |length| u32::from_be_bytes(*length));
    let whole = fixed + extension as usize;
    Ok((bytes.len() >= whole).then_some(whole))
}

/// The length of a row with its count, or None where it is not whole.
fn row_length(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    let Some((count, _)) = bytes.split_first_chunk::<2>() else {
        return Ok(None);
    };
    let mut at = 2;
    for _ in 0..i16::from_be_bytes(*count) {
        let Some(length) = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()) else {
            return Ok(None);
        };
        at += 4;
        match i32::from_be_bytes(*length) {
            -1 => {}
            length => at += usize::try_from(length).map_err(|_| "a value of a negative length")?,
        }
    }
    Ok((bytes.len() >= at).then_some(at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Row = Vec<Option<Vec<u8>>>;

    fn written(rows: &[Row]) -> Vec<u8> {
        let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        for row in rows {
            bytes.extend(i16::try_from(row.len()).unwrap().to_be_bytes());
            for value in row {
                let length = value.as_ref().map_or(-1, |value| value.len() as i32);
                bytes.extend(length.to_be_bytes());
                bytes.extend(value.iter().flatten());
            }
        }
        bytes.extend((-1_i16).to_be_bytes());
        bytes
    }

    proptest! {
        #[test]
        fn rows_are_read_wherever_the_bytes_are_cut(
            rows in prop::collection::vec(prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..9)), 3), 0..8),
            cuts in prop::collection::vec(0..200_usize, 0..8),
        ) {
            let bytes = written(&rows);
            let (mut reader, mut read): (_, Vec<Row>) = (CopyReader::default(), Vec::new());
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            for cut in cuts.windows(2) {
                let part = &bytes[cut[0]..cut[1]];
                reader.take(part, 3, |values| read.push(values.map(|value| value.map(<[u8]>::to_vec)).collect())).unwrap();
            }
            prop_assert!(reader.is_at_its_end());
            prop_assert_eq!(read, rows);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), headed: bool) {
            let bytes = if headed { [written(&[])[..19].to_vec(), bytes].concat() } else { bytes };
            let _ = CopyReader::default().take(&bytes, 2, |values| { values.count(); });
        }
    }

    #[test]
    fn what_is_not_a_copy_is_said() {
        let take = |bytes: &[u8]| CopyReader::default().take(bytes, 2, |_| {});
        assert_eq!(take(b"something else entirely"), Err("no signature"));
        assert_eq!(take(&written(&[vec![None]])), Err("a row of another number of columns"));
        assert_eq!(take(&[written(&[]), vec![0]].concat()), Err("bytes behind its end"));
    }
}
