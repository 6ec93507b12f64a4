//! Random values as SQL, with a liking for what printers and parsers get wrong.

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Text that wants quotes of every kind, quoted for SQL.
pub fn text(rng: &mut SmallRng) -> String {
    const PIECES: &[&str] = &[
        "a",
        "b c",
        "\"",
        "\\",
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        ",",
        ";",
        "'",
        "NULL",
        "=>",
        " ",
        "é",
        "\u{1F600}",
        ":",
        "0",
    ];
    let text: String = (0..rng.random_range(0..6)).map(|_| *PIECES.choose(rng).unwrap()).collect();
    // Not for names and fixed lengths, which cut: 12 characters are enough.
    quoted(&text.chars().take(12).collect::<String>())
}

/// A value of the type `mood`.
pub fn mood(rng: &mut SmallRng) -> String {
    quoted(["sad", "o k", "\"happy\"", "null"].choose(rng).unwrap())
}

/// JSON as somebody may have written it: nested, with escapes, numbers in all their forms, spaces, and the same name twice.
pub fn json(rng: &mut SmallRng) -> String {
    quoted(&json_value(rng, 3))
}

fn json_value(rng: &mut SmallRng, depth: u32) -> String {
    let kinds = if depth == 0 { 5 } else { 9 };
    match rng.random_range(0..kinds) {
        0 => (*["null", "true", "false"].choose(rng).unwrap()).to_owned(),
        1 | 2 => json_number(rng),
        3 | 4 => json_text(rng),
        5 | 6 => {
            let items: Vec<String> = (0..rng.random_range(0..4)).map(|_| json_value(rng, depth - 1)).collect();
            format!("[{}]", items.join(space(rng, ",")))
        }
        _ => {
            let member = |rng: &mut SmallRng| {
                // Of few, so that some come twice.
                let name = match rng.random_range(0..3) {
                    0 => json_text(rng),
                    _ => (*["\"\"", "\"a\"", "\"b c\""].choose(rng).unwrap()).to_owned(),
                };
                let colon = space(rng, ":");
                format!("{name}{colon}{}", json_value(rng, depth - 1))
            };
            let members: Vec<String> = (0..rng.random_range(0..4)).map(|_| member(rng)).collect();
            format!("{{{}}}", members.join(space(rng, ",")))
        }
    }
}

/// A comma or a colon as JSON may have it.
fn space(rng: &mut SmallRng, what: &str) -> &'static str {
    let ways = match what {
        "," => [",", ", ", " ,\n\t"],
        _ => [":", ": ", " :\r\n"],
    };
    ways.choose(rng).copied().unwrap()
}

fn json_number(rng: &mut SmallRng) -> String {
    let whole = match rng.random_range(0..3) {
        0 => 0,
        1 => rng.random_range(1..1000),
        _ => rng.random::<u64>(),
    };
    let fraction = match rng.random_range(0..3) {
        0 => format!(".{:020}", rng.random::<u64>()),
        1 => format!(".{}00", rng.random_range(0..100)),
        _ => String::new(),
    };
    let sign = *["", "-"].choose(rng).unwrap();
    let exponent = *["", "", "", "e3", "E+12", "e-7", "E05"].choose(rng).unwrap();
    format!("{sign}{whole}{fraction}{exponent}")
}

fn json_text(rng: &mut SmallRng) -> String {
    const PIECES: &[&str] = &[
        "a",
        " ",
        "'",
        "{",
        "]",
        ",",
        ":",
        "é",
        "\u{1F600}",
        "\\\"",
        "\\\\",
        "\\/",
        "\\b",
        "\\f",
        "\\n",
        "\\r",
        "\\t",
        "\\u00e9",
        "\\u0001",
        "\\ud83d\\ude00",
        "\\u007F",
        "\\\\u0000",
    ];
    let pieces: String = (0..rng.random_range(0..6)).map(|_| *PIECES.choose(rng).unwrap()).collect();
    format!("\"{pieces}\"")
}

pub fn jsonpath(rng: &mut SmallRng) -> String {
    const STEPS: &[&str] = &[
        ".a",
        ".\"b c\"",
        ".\"q\\\"\\\\\"",
        "[*]",
        "[0 to 3, last]",
        ".*",
        ".**{1 to 2}",
        ".size()",
        ".double()",
        " ? (@.a > 1.50 && !(@.b == \"it's\"))",
        " ? (exists (@.\"é\") || @ starts with \"x\")",
        " ? (@ like_regex \"^a.*\" flag \"i\")",
    ];
    let mode = *["", "lax ", "strict "].choose(rng).unwrap();
    let steps: String = (0..rng.random_range(0..5)).map(|_| *STEPS.choose(rng).unwrap()).collect();
    quoted(&format!("{mode}${steps}"))
}

pub fn tsquery(rng: &mut SmallRng) -> String {
    let word = |rng: &mut SmallRng| *["fat", "'o''k'", "rat:AB", "!cat", "super:*", "(a | b)"].choose(rng).unwrap();
    let mut query = word(rng).to_owned();
    for _ in 0..rng.random_range(0..4) {
        query.push_str([" & ", " | ", " <-> ", " <3> "].choose(rng).unwrap());
        query.push_str(word(rng));
    }
    quoted(&query)
}

/// A path of labels; none of them for the root.
pub fn ltree(rng: &mut SmallRng) -> String {
    let label = |rng: &mut SmallRng| {
        let word = *["Top", "a", "B_2", "_", "007"].choose(rng).unwrap();
        format!("{word}{}", rng.random_range(0..100))
    };
    let labels: Vec<String> = (0..rng.random_range(0..6)).map(|_| label(rng)).collect();
    quoted(&labels.join("."))
}

/// A number of up to so many digits before and behind the point.
pub fn number(rng: &mut SmallRng, whole: usize, fraction: usize) -> String {
    let mut digits = |most: usize| -> String {
        let zeros = rng.random_range(0..3) == 0;
        let digit = |rng: &mut SmallRng| {
            if zeros && rng.random_range(0..4) > 0 {
                '0'
            } else {
                rng.random_range('0'..='9')
            }
        };
        (0..rng.random_range(0..=most)).map(|_| digit(rng)).collect()
    };
    let (whole, fraction) = (digits(whole), digits(fraction));
    let sign = if rng.random() { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}0{whole}{point}{fraction}")
}

/// Any bits, or a short number: the two ways in which printers go wrong.
pub fn double(rng: &mut SmallRng) -> String {
    let any = f64::from_bits(rng.random());
    let value = match rng.random_range(0..4) {
        0 if any.is_finite() => any,
        1 => f64::from(rng.random_range(-1000i32..1000)) * 10f64.powi(rng.random_range(-30..30)),
        2 => 2f64.powi(rng.random_range(-1074..1024)),
        _ => (rng.random_range(1u64..1 << 54) as f64) * 2f64.powi(rng.random_range(0..30)),
    };
    format!("'{value:e}'::float8")
}

pub fn single(rng: &mut SmallRng) -> String {
    let any = f32::from_bits(rng.random());
    let value = match rng.random_range(0..4) {
        0 if any.is_finite() => any,
        1 => rng.random_range(-1000i16..1000) as f32 * 10f32.powi(rng.random_range(-20..20)),
        2 => 2f32.powi(rng.random_range(-149..128)),
        _ => (rng.random_range(1u32..1 << 25) as f32) * 2f32.powi(rng.random_range(0..10)),
    };
    format!("'{value:e}'::float4")
}

pub fn bytes(rng: &mut SmallRng) -> String {
    let bytes: String = (0..rng.random_range(0..20))
        .map(|_| format!("{:02x}", rng.random::<u8>()))
        .collect();
    format!("'\\x{bytes}'")
}

pub fn date(rng: &mut SmallRng) -> String {
    let days = if rng.random() {
        rng.random_range(-2_451_545..2_145_031_948)
    } else {
        rng.random_range(-800_000..400_000)
    };
    format!("date '2000-01-01' + {days}")
}

pub fn timestamp(rng: &mut SmallRng) -> String {
    let days = if rng.random() {
        rng.random_range(-2_451_545..106_000_000)
    } else {
        rng.random_range(-800_000..400_000)
    };
    format!("timestamp '2000-01-01' + make_interval(days => {days}) + {}::interval", time(rng))
}

pub fn timestamptz(rng: &mut SmallRng) -> String {
    format!("({}) AT TIME ZONE 'UTC'", timestamp(rng))
}

pub fn time(rng: &mut SmallRng) -> String {
    let places = rng.random_range(0..=6);
    let fraction = rng.random_range(0..10u32.pow(places));
    let point = if places == 0 {
        String::new()
    } else {
        format!(".{fraction:0width$}", width = places as usize)
    };
    format!(
        "'{:02}:{:02}:{:02}{point}'",
        rng.random_range(0..24),
        rng.random_range(0..60),
        rng.random_range(0..60)
    )
}

pub fn timetz(rng: &mut SmallRng) -> String {
    let sign = if rng.random() { '+' } else { '-' };
    let zone = match rng.random_range(0..3) {
        0 => format!("{:02}", rng.random_range(0..16)),
        1 => format!("{:02}:{:02}", rng.random_range(0..16), rng.random_range(0..60)),
        _ => format!(
            "{:02}:{:02}:{:02}",
            rng.random_range(0..16),
            rng.random_range(0..60),
            rng.random_range(0..60)
        ),
    };
    format!("'{}{sign}{zone}'", time(rng).trim_matches('\''))
}

pub fn interval(rng: &mut SmallRng) -> String {
    let mut part = |most: i32| {
        if rng.random_range(0..3) == 0 {
            0
        } else {
            rng.random_range(-most..most)
        }
    };
    let (months, days, seconds, us) = (part(40_000), part(1_000_000), part(i32::MAX), part(1_000_000));
    format!("'{months} mons {days} days {seconds} secs {us} microseconds'")
}

pub fn inet(rng: &mut SmallRng) -> String {
    if rng.random() {
        let address = std::net::Ipv4Addr::from(rng.random::<u32>());
        return format!("'{address}/{}'", rng.random_range(0..=32));
    }
    // Words of zeros are what an address is shortened by.
    let mut words: [u16; 8] = rng.random();
    let keep: u8 = rng.random();
    for (index, word) in words.iter_mut().enumerate() {
        if keep >> index & 1 == 0 {
            *word = 0;
        }
    }
    if rng.random_range(0..4) == 0 {
        words[..5].fill(0);
        words[5] = *[0, 0xffff].choose(rng).unwrap();
    }
    format!(
        "'{}/{}'",
        words.map(|word| format!("{word:x}")).join(":"),
        rng.random_range(100..=128)
    )
}

pub fn point(rng: &mut SmallRng) -> String {
    format!("point({}, {})", double(rng), double(rng))
}

pub fn hstore(rng: &mut SmallRng) -> String {
    format!("hstore(ARRAY[{}, {}], ARRAY[{}, NULL])", text(rng), text(rng), text(rng))
}

pub fn pair(rng: &mut SmallRng) -> String {
    format!("ROW({}, {}, ARRAY[{}, NULL])::pair", double(rng), text(rng), single(rng))
}

pub fn wide(rng: &mut SmallRng) -> String {
    let r = rng;
    let array = match r.random_range(0..4) {
        0 => "'{}'".to_owned(),
        1 => format!("ARRAY[[{}, NULL], [{}, {}]]", text(r), text(r), text(r)),
        2 => format!("('[0:1]={{a,b}}'::text[] || {}::text)", text(r)),
        _ => format!("ARRAY[{}, NULL]", text(r)),
    };
    let fields = [
        r.random::<i32>().to_string(),
        text(r),
        array,
        pair(r),
        format!("int4range({}, NULL)", r.random::<i32>()),
        hstore(r),
        interval(r),
        bytes(r),
        r.random::<bool>().to_string(),
        number(r, 8, 2),
        timestamptz(r),
        date(r),
        mood(r),
        inet(r),
        format!("'{:032x}'", r.random::<u128>()),
        format!("B'{:05b}'", r.random::<u8>() >> 3),
        format!("ARRAY[{}, NULL]", pair(r)),
        json(r),
        format!("chr({})::\"char\"", r.random_range(1..128)),
        time(r),
        timetz(r),
        format!("ARRAY[box({}, {}), NULL]", point(r), point(r)),
        format!("xmlelement(name b, {})", text(r)),
        format!("to_tsvector('simple', {})", text(r)),
        "'ab'".to_owned(),
        r.random::<i16>().to_string(),
        r.random::<i64>().to_string(),
        r.random::<u32>().to_string(),
        timestamp(r),
        format!("'{:012x}'", r.random::<u64>() >> 16),
        format!("B'{:b}'", r.random::<u64>()),
        format!("'{:X}/{:X}'", r.random::<u32>(), r.random::<u32>()),
        format!("texts(NULL, {})", text(r)),
        text(r),
    ];
    let fields = fields.map(|field| if r.random_range(0..6) == 0 { "NULL".to_owned() } else { field });
    format!("ROW({})", fields.join(", "))
}
