//! Types as people write them, like `format_type` of the server: `character varying(5)`, `numeric(8,2)`, `bigint`.

/// The name that SQL has for a type of the server's own, with what the modifier says; None where it is the name in the catalog.
pub(super) fn sql_name(oid: u32, modifier: i32) -> Option<String> {
    let plain = |name: &str| Some(name.to_owned());
    let of = |name: &str, number: i32| Some(if number < 0 { name.to_owned() } else { format!("{name}({number})") });
    let moment = |name: &str, zone: &str| {
        let digits = if modifier < 0 { String::new() } else { format!("({modifier})") };
        Some(format!("{name}{digits} {zone} time zone"))
    };
    // Of texts the modifier counts what stands before them, too.
    let letters = modifier.saturating_sub(4);
    match oid {
        16 => plain("boolean"),
        20 => plain("bigint"),
        21 => plain("smallint"),
        23 => plain("integer"),
        700 => plain("real"),
        701 => plain("double precision"),
        1042 if letters >= 0 => of("character", letters),
        1043 => of("character varying", letters),
        1083 => moment("time", "without"),
        1114 => moment("timestamp", "without"),
        1184 => moment("timestamp", "with"),
        1266 => moment("time", "with"),
        1560 if modifier >= 0 => of("bit", modifier),
        1562 => of("bit varying", modifier),
        1700 if modifier >= 4 => {
            let packed = modifier - 4;
            Some(format!("numeric({},{})", packed >> 16, ((packed & 0x7ff) ^ 1024) - 1024))
        }
        _ => None,
    }
}
