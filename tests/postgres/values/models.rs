//! Numbers and moments against models that are right by being simple.

use alluvium::sources::postgres::values::{ColumnBuilder, Specials};
use arrow::array::AsArray;
use arrow::datatypes::{Decimal128Type, Int32Type, TimestampMicrosecondType};
use proptest::prelude::*;

use super::{read, types};

/// A numeric as the server sends it: groups of four digits without zeros at either end.
fn numeric(unscaled: i128, scale: usize) -> Vec<u8> {
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let whole = format!("{}{whole}", "0".repeat((4 - whole.len() % 4) % 4));
    let fraction = format!("{fraction}{}", "0".repeat((4 - fraction.len() % 4) % 4));
    let groups: Vec<u16> = format!("{whole}{fraction}")
        .as_bytes()
        .chunks(4)
        .map(|group| std::str::from_utf8(group).unwrap().parse().unwrap())
        .collect();
    let first = groups.iter().position(|group| *group != 0).unwrap_or(groups.len());
    let last = groups.iter().rposition(|group| *group != 0).map_or(first, |last| last + 1);
    let weight = if first == last {
        0
    } else {
        whole.len() as i16 / 4 - 1 - first as i16
    };
    let sign = if unscaled < 0 { 0x4000 } else { 0 };
    let head = [(last - first) as u16, weight as u16, sign, scale as u16];
    head.iter()
        .chain(&groups[first..last])
        .flat_map(|word| word.to_be_bytes())
        .collect()
}

fn shown(unscaled: i128, scale: usize) -> String {
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!(
        "{}{whole}{}{fraction}",
        if unscaled < 0 { "-" } else { "" },
        if scale > 0 { "." } else { "" }
    )
}

proptest! {
    #[test]
    fn a_numeric_is_the_same_number_in_both_forms(unscaled in -(10i128.pow(38) - 1)..10i128.pow(38), shift in 0u32..38, scale in 0usize..=38) {
        let unscaled = unscaled / 10i128.pow(shift) * if shift % 3 == 0 { 10i128.pow(shift) } else { 1 };
        let decimal = types().column(1700, (38 << 16 | scale as i32) + 4);
        let (binary, text) = (numeric(unscaled, scale), shown(unscaled, scale));
        let mut column = ColumnBuilder::new(&decimal, Specials::Reject);
        column.append_binary(&binary).unwrap();
        column.append_text(text.as_bytes()).unwrap();
        let array = column.finish().unwrap();
        prop_assert_eq!(array.as_primitive::<Decimal128Type>().values().to_vec(), vec![unscaled; 2]);
        let printed = read(&types().column(1700, -1), Specials::Reject, &binary, true);
        prop_assert_eq!(printed.unwrap(), text);
    }

    #[test]
    fn a_timestamp_is_the_same_moment_in_both_forms(us in -62_135_596_800_000_000i64..8_210_266_876_799_999_999, offset_minutes in -950i64..950) {
        let moment = chrono::DateTime::from_timestamp_micros(us).unwrap();
        let local = (moment + chrono::TimeDelta::minutes(offset_minutes)).naive_utc();
        prop_assume!(us > -62_135_500_000_000_000); // The local year is 1 or later, which chrono and the server write alike.
        let sign = if offset_minutes < 0 { '-' } else { '+' };
        let year = chrono::Datelike::year(&local);
        let text = format!("{year:04}{}{sign}{:02}:{:02}", local.format("-%m-%d %H:%M:%S%.6f"), offset_minutes.abs() / 60, offset_minutes.abs() % 60);
        let mut column = ColumnBuilder::new(&types().column(1184, -1), Specials::Reject);
        column.append_text(text.as_bytes()).unwrap();
        column.append_binary(&(us - 946_684_800_000_000).to_be_bytes()).unwrap();
        let array = column.finish().unwrap();
        prop_assert_eq!(array.as_primitive::<TimestampMicrosecondType>().values().to_vec(), vec![us; 2]);
    }

    #[test]
    fn a_column_weighs_what_its_cells_weigh(values in prop::collection::vec(any::<i32>(), 0..200)) {
        let mut column = ColumnBuilder::new(&types().column(23, -1), Specials::Reject);
        for value in &values {
            column.append_binary(&value.to_be_bytes()).unwrap();
        }
        prop_assert_eq!(column.bytes(), 4 * values.len());
        let array = column.finish().unwrap();
        prop_assert_eq!(array.as_primitive::<Int32Type>().values().to_vec(), values);
        prop_assert_eq!((column.len(), column.bytes()), (0, 0));
    }
}
