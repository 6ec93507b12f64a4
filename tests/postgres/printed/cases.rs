//! Values of every type, as SQL: those at the edges, and random ones.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::random::*;

const RANDOM_VALUES: usize = 150;

/// A type, how the server says what a value `v` of it means, and values as SQL.
pub struct Case {
    pub sql_type: &'static str,
    pub meaning: &'static str,
    pub values: Vec<String>,
}

fn case(sql_type: &'static str, fixed: &[&str], mut random: impl FnMut() -> String) -> Case {
    let edges = fixed.iter().map(|value| (*value).to_owned());
    Case {
        sql_type,
        meaning: "$v",
        values: edges.chain((0..RANDOM_VALUES).map(|_| random())).collect(),
    }
}

impl Case {
    /// Makes a table of the values, in the column `v`.
    pub fn table(&self, name: &str) -> String {
        let rows: Vec<String> = self.values.iter().map(|value| format!("(({value})::{})", self.sql_type)).collect();
        format!(
            "CREATE TABLE {name} (id int GENERATED ALWAYS AS IDENTITY, v {}); INSERT INTO {name} (v) VALUES {}",
            self.sql_type,
            rows.join(", ")
        )
    }

    fn meaning(mut self, meaning: &'static str) -> Self {
        self.meaning = meaning;
        self
    }
}

const DAYS: &str = "$v - date '1970-01-01'";
const MICROSECONDS: &str = "trunc(extract(epoch FROM $v) * 1000000)";

/// The same values for the same seed.
pub fn cases(seed: u64) -> Vec<Case> {
    let rng = || SmallRng::seed_from_u64(seed);
    let of = |generate: fn(&mut SmallRng) -> String| {
        let mut rng = rng();
        move || generate(&mut rng)
    };
    vec![
        case("bool", &["true", "false", "NULL"], of(|r| r.random::<bool>().to_string())),
        case("int2", &["-32768", "32767", "0"], of(|r| r.random::<i16>().to_string())),
        case("int4", &["-2147483648", "2147483647"], of(|r| r.random::<i32>().to_string())),
        case(
            "int8",
            &["-9223372036854775808", "9223372036854775807"],
            of(|r| r.random::<i64>().to_string()),
        ),
        case("oid", &["0", "4294967295"], of(|r| r.random::<u32>().to_string())),
        case("xid", &["'0'", "'4294967295'"], of(|r| format!("'{}'", r.random::<u32>()))),
        case(
            "xid8",
            &["'0'", "'18446744073709551615'"],
            of(|r| format!("'{}'", r.random::<u64>())),
        ),
        case(
            "tid",
            &["'(0,1)'", "'(4294967295,65535)'"],
            of(|r| format!("'({},{})'", r.random::<u32>(), r.random::<u16>())),
        ),
        case(
            "float4",
            &["'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "1e-45", "3.4028235e38"],
            of(single),
        ),
        case(
            "float8",
            &["'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "5e-324", "1e23", "0.1"],
            of(double),
        ),
        case("numeric", NUMERICS, of(|r| number(r, 40, 20))),
        case(
            "numeric",
            &["1e-16383", "-1e131071", "1e10000 + 1e-10000"],
            of(|r| number(r, 400, 400)),
        ),
        case(
            "numeric(10,2)",
            &["0", "-0.01", "99999999.99", "100", "10000", "0.10"],
            of(|r| number(r, 8, 2)),
        ),
        case(
            "numeric(38,0)",
            &["-99999999999999999999999999999999999999"],
            of(|r| number(r, 38, 0)),
        ),
        case(
            "numeric(38,38)",
            &["0.99999999999999999999999999999999999999", "1e-38"],
            of(|r| number(r, 0, 38)),
        ),
        case(
            "numeric(38,37)",
            &["9.9999999999999999999999999999999999999"],
            of(|r| number(r, 1, 37)),
        ),
        case(
            "numeric(37,1)",
            &["999999999999999999999999999999999999.9"],
            of(|r| number(r, 36, 1)),
        ),
        case("numeric(4,4)", &["0.9999", "-0.0001"], of(|r| number(r, 0, 4))),
        case("numeric(39,2)", &["0", "1.1", "'NaN'"], of(|r| number(r, 36, 2))),
        case("price", &["0", "1.1"], of(|r| number(r, 5, 3))),
        case(
            "money",
            &["0", "-0.01", "'92233720368547758.07'", "'-92233720368547758.08'"],
            of(|r| format!("'{}'", number(r, 12, 2))),
        )
        .meaning("$v::numeric"),
        case("text", &["''", "E'\\u00e9 \\U0001F600'", "'NULL'"], of(text)),
        case("varchar(30)", &["''"], of(text)),
        case("bpchar(12)", &["''", "'a'", "'  a '"], of(text)),
        case("name", &["''", "'a'"], of(text)),
        case("citext", &["''", "'aA'"], of(text)),
        case(
            "\"char\"",
            &["''", "'c'"],
            of(|r| format!("chr({})::\"char\"", r.random_range(1..128))),
        ),
        case("json", &["'{\"a\" : 1}'", "'[1,  2.50, null]'"], of(json)),
        case("jsonb", &["'{\"a\" : 1}'", "'[1,  2.50, null]'"], of(json)),
        case("jsonpath", &["'$.a[*] ? (@ > 1)'", "'strict $.\"b\"'"], of(jsonpath)),
        case(
            "xml",
            &[
                "'<a>&amp;</a>'",
                "'<?xml version=\"1.0\" encoding=\"UTF-8\"?><a/>'",
                "'<?xml version=\"1.1\"?><a/>'",
            ],
            of(|r| format!("xmlelement(name b, {})", text(r))),
        ),
        case("mood", &["'sad'", "'o k'", "'\"happy\"'", "NULL"], of(mood)),
        case(
            "uuid",
            &["'00000000-0000-0000-0000-000000000000'"],
            of(|r| format!("'{:032x}'", r.random::<u128>())),
        ),
        case("bytea", &["''", "'\\x00ff'"], of(bytes)),
        case("date", DATES, of(date)).meaning(DAYS),
        case("timestamp", TIMESTAMPS, of(timestamp)).meaning(MICROSECONDS),
        case("timestamp(3)", &["'2024-02-29 12:34:56.7895'"], of(timestamp)).meaning(MICROSECONDS),
        case("timestamptz", TIMESTAMPS, of(timestamptz)).meaning(MICROSECONDS),
        case("time", &["'00:00'", "'24:00'", "'12:34:56.7'"], of(time)),
        case("time(2)", &["'12:34:56.789'"], of(time)),
        case(
            "timetz",
            &["'00:00+15:59:59'", "'24:00-15:59'", "'12:34:56.7+05:45'", "'01:00-00:00:01'"],
            of(timetz),
        ),
        case("interval", INTERVALS, of(interval)),
        case(
            "inet",
            &[
                "'0.0.0.0'",
                "'192.168.1.5/24'",
                "'::'",
                "'::1'",
                "'::ffff:1.2.3.4'",
                "'::1.2.3.4/96'",
                "'::2'",
            ],
            of(inet),
        ),
        case(
            "cidr",
            &["'10.0.0.0/8'", "'1.2.3.4/32'", "'::/0'", "'::1/128'"],
            of(|r| format!("network({})", inet(r))),
        ),
        case(
            "macaddr",
            &["'08:00:2b:01:02:03'"],
            of(|r| format!("'{:012x}'", r.random::<u64>() >> 16)),
        ),
        case(
            "macaddr8",
            &["'08:00:2b:01:02:03:04:05'"],
            of(|r| format!("'{:016x}'", r.random::<u64>())),
        ),
        case(
            "bit(11)",
            &["B'00000000000'"],
            of(|r| format!("B'{:011b}'", r.random::<u16>() >> 5)),
        ),
        case(
            "varbit",
            &["B''", "B'101'", "B'11111111'"],
            of(|r| format!("B'{:b}'", r.random::<u64>())),
        ),
        case(
            "pg_lsn",
            &["'0/0'", "'16/B374D848'", "'FFFFFFFF/FFFFFFFF'"],
            of(|r| format!("'{:X}/{:X}'", r.random::<u32>(), r.random::<u32>())),
        ),
        case(
            "tsvector",
            &["''", "'fat:3A cat:1B,2C dog:5,6'", "$$'it''s' 'a\\\\b':16383A ' x '$$"],
            of(|r| format!("to_tsvector('simple', {}) || array_to_tsvector(ARRAY[{} || 'x'])", text(r), text(r))),
        ),
        case("point", &["'(1,2)'", "'(NaN,-Infinity)'", "'(1e23,-0)'"], of(point)),
        case("lseg", &["'[(1,2),(3,4)]'"], of(|r| format!("lseg({}, {})", point(r), point(r)))),
        case("box", &["'(1,2),(3,4)'"], of(|r| format!("box({}, {})", point(r), point(r)))),
        case(
            "path",
            &["'((1,2),(3,4))'", "'[(1,2)]'"],
            of(|r| format!("popen(path(polygon(3, circle({}, 2))))", point(r))),
        ),
        case(
            "polygon",
            &["'((1,2),(3,4))'"],
            of(|r| format!("polygon(3, circle({}, 2))", point(r))),
        ),
        case(
            "line",
            &["'{1,2,3}'"],
            of(|r| format!("'{{{},1,{}}}'", r.random::<f64>(), r.random::<f64>())),
        ),
        case("circle", &["'<(1,2),3>'"], of(|r| format!("circle({}, 1e-5)", point(r)))),
        case(
            "int4range",
            &["'empty'", "'(,)'", "'[1,5]'", "'(,3]'"],
            of(|r| format!("int4range({}, {}, '[]')", r.random_range(-9..0), r.random_range(0..9))),
        ),
        case(
            "int8range",
            &["'empty'", "'[1,)'"],
            of(|r| format!("int8range({}, NULL)", r.random::<i64>())),
        ),
        case(
            "numrange",
            &["'[1.50,2.0]'", "'[-Infinity,NaN)'"],
            of(|r| format!("numrange({}, 'Infinity', '()')", number(r, 9, 9))),
        ),
        case(
            "tsrange",
            &["'[-infinity,infinity)'", "'[0044-03-15 BC,2024-01-01)'"],
            of(|r| format!("tsrange({}, NULL, '()')", timestamp(r))),
        ),
        case(
            "tstzrange",
            &["'[-infinity,infinity)'"],
            of(|r| format!("tstzrange({}, 'infinity', '[]')", timestamptz(r))),
        ),
        case(
            "daterange",
            &["'[0044-03-15 BC,infinity]'", "'[-infinity,5874897-01-01)'"],
            of(|r| format!("daterange({}, NULL)", date(r))),
        ),
        case(
            "floats",
            &["'[1e23,)'", "'[NaN,]'", "'[-Infinity,Infinity]'"],
            of(|r| format!("floats({}, NULL)", double(r))),
        ),
        case(
            "singles",
            &["'[16777216,)'", "'[NaN,]'"],
            of(|r| format!("singles({}, NULL)", single(r))),
        ),
        case(
            "texts",
            &["texts('', '')", "texts('', NULL)"],
            of(|r| format!("texts(NULL, {})", text(r))),
        ),
        case(
            "int4multirange",
            &["'{}'", "'{[1,3),[5,)}'"],
            of(|r| {
                format!(
                    "int4multirange(int4range(-9, {}), int4range(20, {}))",
                    r.random_range(-8..9),
                    r.random_range(21..99)
                )
            }),
        ),
        case(
            "tstzmultirange",
            &["'{(,)}'"],
            of(|r| format!("tstzmultirange(tstzrange({}, NULL))", timestamptz(r))),
        ),
        case(
            "hstore",
            &["''", "'a=>NULL'", "hstore('\"\\', '')", "hstore('NULL', 'NULL')"],
            of(hstore),
        ),
        case("positive", &["1"], of(|r| r.random_range(1..i32::MAX).to_string())),
        case(
            "ints",
            &["'{1,NULL}'", "'[3:4]={1,2}'"],
            of(|r| format!("ARRAY[{}, NULL]", r.random::<i32>())),
        ),
        case(
            "ints[]",
            &["'{\"{1,NULL}\",NULL}'"],
            of(|r| format!("ARRAY[ARRAY[{}]::ints, NULL]", r.random::<i32>())),
        ),
        case(
            "bool[]",
            &["'{}'", "'{t,f,NULL}'"],
            of(|r| format!("ARRAY[{}]", r.random::<bool>())),
        ),
        case(
            "int4[]",
            &["'{}'", "'{NULL}'", "'[-1:1]={1,2,3}'"],
            of(|r| format!("ARRAY[{}, NULL, 1]", r.random::<i32>())),
        ),
        case("float8[]", &["'{NaN,-Infinity,1e23}'"], of(|r| format!("ARRAY[{}]", double(r)))),
        case(
            "numeric(6,2)[]",
            &["'{1,NULL,-0.01}'"],
            of(|r| format!("ARRAY[{}]", number(r, 4, 2))),
        ),
        case("numeric[]", &["'{1,NaN,-0.010}'"], of(|r| format!("ARRAY[{}]", number(r, 40, 20)))),
        case("price[]", &["'{1,NULL}'"], of(|r| format!("ARRAY[{}]", number(r, 5, 3)))),
        case("money[]", &["'{1,NULL}'"], of(|r| format!("ARRAY['{}'::money]", number(r, 5, 2)))).meaning("$v::numeric"),
        case(
            "text[]",
            &["'{\"\",null,\"null\",NuLL,\"NULL\"}'"],
            of(|r| format!("ARRAY[{}, NULL, {}]", text(r), text(r))),
        ),
        case("citext[]", &["'{\"\",NULL}'"], of(|r| format!("ARRAY[{}]", text(r)))),
        case(
            "mood[]",
            &["'{sad,\"o k\",NULL}'"],
            of(|r| format!("ARRAY[{}::mood, NULL, {}]", mood(r), mood(r))),
        ),
        case(
            "bytea[]",
            &["ARRAY['\\x'::bytea, NULL]"],
            of(|r| format!("ARRAY[{}::bytea]", bytes(r))),
        ),
        case("date[]", &["'{NULL,0044-03-15 BC}'"], of(|r| format!("ARRAY[{}]", date(r)))).meaning(DAYS),
        case(
            "timestamptz[]",
            &["'{NULL,\"0044-03-15 12:00 BC\"}'"],
            of(|r| format!("ARRAY[{}]", timestamptz(r))),
        )
        .meaning(MICROSECONDS),
        case(
            "interval[]",
            &["'{NULL,1 day}'"],
            of(|r| format!("ARRAY[{}::interval]", interval(r))),
        ),
        case("inet[]", &["'{NULL,::1}'"], of(|r| format!("ARRAY[{}::inet]", inet(r)))),
        case(
            "box[]",
            &["'{(1,2),(3,4);(5,6),(7,8)}'"],
            of(|r| format!("ARRAY[box({}, {}), NULL]", point(r), point(r))),
        ),
        case(
            "jsonb[]",
            &["ARRAY['{\"a\": [1, \"\\\\\"]}'::jsonb, NULL, 'null']"],
            of(|r| format!("ARRAY[{}::jsonb, NULL]", json(r))),
        ),
        case("uuid[]", &["'{}'"], of(|r| format!("ARRAY['{:032x}'::uuid]", r.random::<u128>()))),
        case(
            "int4range[]",
            &["'{empty,\"[1,2)\",NULL}'"],
            of(|r| format!("ARRAY[int4range({}, NULL)]", r.random::<i32>())),
        ),
        case(
            "pair[]",
            &["ARRAY[NULL, ROW(NULL, NULL, NULL)::pair]"],
            of(|r| format!("ARRAY[{}]", pair(r))),
        ),
        case("hstore[]", &["ARRAY[''::hstore, NULL]"], of(|r| format!("ARRAY[{}]", hstore(r)))),
        case(
            "shop",
            &["NULL", "ROW(1, NULL, NULL)"],
            of(|r| format!("ROW(1, {}, ARRAY[{}])", text(r), number(r, 5, 3))),
        ),
        case(
            "shop[]",
            &["NULL"],
            of(|r| format!("ARRAY[ROW(1, {}, ARRAY[{}])::shop]", text(r), number(r, 5, 3))),
        ),
        case(
            "pair",
            &["NULL", "ROW(NULL, NULL, NULL)", "ROW(1e23, '', '{16777216,NaN}')"],
            of(pair),
        ),
        case("wide", &[], of(wide)),
        // These are not read in binary form.
        case(
            "purse",
            &["ROW('a', 1::money)"],
            of(|r| format!("ROW({}, '{}'::money)", text(r), number(r, 9, 2))),
        ),
        case("tsquery", &["'a & !b'", "''"], of(tsquery)),
        case("regclass", &["'pg_class'", "0"], of(|r| format!("{}::oid", r.random::<u32>()))),
        case(
            "int2vector",
            &["'1 2'", "''"],
            of(|r| format!("'{} {}'", r.random::<i16>(), r.random::<i16>())),
        ),
        case("ltree", &["'a.b'", "''"], of(ltree)),
        case(
            "ltree[]",
            &["'{a.b,NULL}'", "'{}'"],
            of(|r| format!("ARRAY[{}::ltree, NULL]", ltree(r))),
        ),
    ]
}

const NUMERICS: &[&str] = &[
    "0",
    "0.000",
    "'NaN'",
    "'Infinity'",
    "'-Infinity'",
    "1",
    "-1.50",
    "10000",
    "9999.9999",
    "0.0001",
    "0.00001",
    "123456789.987654321",
    "100000000",
    "1e100",
    "1e-100",
    "-0.0000000010",
];
const DATES: &[&str] = &[
    "'1970-01-01'",
    "'0001-01-01'",
    "'0001-12-31 BC'",
    "'0045-02-29 BC'",
    "'4713-01-01 BC'",
    "'9999-12-31'",
    "'10000-01-01'",
    "'5874897-12-31'",
    "NULL",
];
const TIMESTAMPS: &[&str] = &[
    "'1970-01-01'",
    "'1969-12-31 23:59:59.999999'",
    "'0001-01-01'",
    "'0001-12-31 23:59:59.9 BC'",
    "'4713-01-01 BC'",
    "'9999-12-31 23:59:59.999999'",
    "'10000-01-01'",
    "'294247-01-10 04:00:54.775806'",
    "'1883-11-18 12:00:00.1'",
    "'2016-12-31 23:59:60'",
    "NULL",
];
const INTERVALS: &[&str] = &[
    "'0'",
    "'1 year'",
    "'-1 year'",
    "'1 mon -1 day'",
    "'-1 year 2 mons -3 days 04:05:06.7'",
    "'-1 day +00:00:00.000001'",
    "'-00:00:00.1'",
    "'14 mons -0.5 sec'",
    "'178956970 years 7 mons 2147483647 days'",
    "'-178956970 years'",
    "'1 day -999:00:01'",
    "'1 year 1 mon 1 day 00:00:01'",
];
