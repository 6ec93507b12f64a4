//! Bytes that nobody has sent: they may be refused, and must do no harm to what stands beside them.

use alluvium::sources::postgres::types::ColumnType;
use alluvium::sources::postgres::values::{ColumnBuilder, Specials};
use arrow::array::{Array, ArrayRef};
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::super::printed::render;
use super::{COMPOSITE, DOMAIN, HSTORE, MOODS, NESTED, SENT, TWO_DIMENSIONS, types, unhex};

/// All types of the samples and the nested ones, as columns.
fn columns() -> Vec<ColumnType> {
    let oids = [
        16, 17, 18, 20, 21, 23, 26, 27, 25, 600, 601, 602, 603, 604, 628, 718, 869, 700, 701, 790, 829, 1082, 1083, 1114, 1184, 1186, 1266,
        1560, 1700, 2950, 3220, 3614, 3802, 5069, 1005, 1007, 1009, 1020, 1115, 1231, 3904, 3910, 4451, MOODS, COMPOSITE, DOMAIN, NESTED,
        HSTORE, 16_501, 16_700,
    ];
    let types = types();
    let mut columns: Vec<ColumnType> = oids.iter().map(|oid| types.column(*oid, -1)).collect();
    columns.push(types.column(1700, (12 << 16 | 4) + 4));
    columns.push(types.column(1231, (38 << 16 | 38) + 4));
    columns
}

/// Appends a value that may be anything between two that are good: these must stay as they are, and nothing may panic.
fn survives(column: &ColumnType, good: &[u8], value: &[u8], binary: bool) {
    for specials in [Specials::Reject, Specials::Null] {
        let mut builder = ColumnBuilder::new(column, specials);
        builder.append_null();
        let append = |builder: &mut ColumnBuilder, value: &[u8]| match binary {
            true => builder.append_binary(value).is_ok(),
            false => builder.append_text(value).is_ok(),
        };
        let first = append(&mut builder, good);
        let kept = append(&mut builder, value);
        let last = append(&mut builder, good);
        assert_eq!(first, last, "{}: {value:x?}", column.name());
        assert_eq!(builder.len(), 1 + usize::from(first) + usize::from(kept) + usize::from(last));
        let array: ArrayRef = builder.finish().unwrap();
        assert_eq!(array.data_type(), &column.data_type());
        assert_eq!(array.len(), 1 + usize::from(first) + usize::from(kept) + usize::from(last));
        assert!(array.is_null(0));
        if first {
            let end = array.len() - 1;
            assert_eq!(
                render(array.as_ref(), 1),
                render(array.as_ref(), end),
                "{}: {value:x?}",
                column.name()
            );
        }
    }
}

#[test]
fn bytes_that_are_almost_values_do_no_harm() {
    let mut rng = SmallRng::seed_from_u64(1);
    let nested = "0000000300004028000000190000000200000017000000040000000100000019000000017a000003f1000000200000000100000000000000190000000200000001000000016100000003622c6300004074000000140000000100000001610000000162";
    let more = [
        (NESTED, nested),
        (1007, TWO_DIMENSIONS),
        (HSTORE, "00000002000000016100000001310000000162ffffffff"),
    ];
    let samples = SENT.iter().map(|(oid, modifier, bytes, _)| (*oid, *modifier, *bytes));
    for (oid, modifier, bytes) in samples.chain(more.map(|(oid, bytes)| (oid, -1, bytes))) {
        let (column, good) = (types().column(oid, modifier), unhex(bytes));
        for cut in 0..good.len() {
            survives(&column, &good, &good[..cut], true);
        }
        for _ in 0..300 {
            let mut value = good.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..=value.len());
                match rng.random_range(0..4) {
                    0 => value.insert(at, rng.random()),
                    1 if at < value.len() => value[at] = *[0, 1, 0x7f, 0x80, 0xff].get(rng.random_range(0..5)).unwrap(),
                    2 if at < value.len() => value[at] ^= 1 << rng.random_range(0..8),
                    _ if at < value.len() => drop(value.remove(at)),
                    _ => {}
                }
            }
            survives(&column, &good, &value, true);
            survives(&column, &good, &value, false);
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_do_harm(index in 0usize..52, bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        survives(&columns()[index], &[], &bytes, true);
        survives(&columns()[index], &[], &bytes, false);
    }

    #[test]
    fn no_text_does_harm(index in 0usize..52, text in r#"[-+0-9.:eE {}\[\]()",;\\=>NULtfBCinaty]{0,40}"#) {
        survives(&columns()[index], b"{}", text.as_bytes(), false);
        survives(&columns()[index], b"{}", format!("{{{text}}}").as_bytes(), false);
    }
}
