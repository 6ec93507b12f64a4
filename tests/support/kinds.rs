//! A topic with every type that a schema can name, in a table of all records and in one with partitions, and what readers must see of them.

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};

use super::history;
use super::kafka::Broker;
use super::program::Site;
use super::python::{Condition, Question, Reader};
use super::readback::texts;

const SCHEMA: &str = r#"{"type": "record", "name": "Kinds", "fields": [
    {"name": "id", "type": ["null", "long"]},
    {"name": "city", "type": ["null", "string"]},
    {"name": "yes", "type": ["null", "boolean"]},
    {"name": "i", "type": ["null", "int"]},
    {"name": "l", "type": ["null", "long"]},
    {"name": "f", "type": ["null", "float"]},
    {"name": "d", "type": ["null", "double"]},
    {"name": "bytes", "type": ["null", "bytes"]},
    {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}]},
    {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
    {"name": "wall", "type": ["null", {"type": "long", "logicalType": "local-timestamp-micros"}]},
    {"name": "clock", "type": ["null", {"type": "long", "logicalType": "time-micros"}]},
    {"name": "large", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 10}]},
    {"name": "small", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}]},
    {"name": "uuid", "type": ["null", {"type": "string", "logicalType": "uuid"}]},
    {"name": "mood", "type": ["null", {"type": "enum", "name": "Mood", "symbols": ["sad", "ok"]}]},
    {"name": "deep", "type": ["null", {"type": "record", "name": "Deep", "fields": [
        {"name": "n", "type": ["null", "int"]},
        {"name": "deeper", "type": ["null", {"type": "record", "name": "Deeper", "fields": [{"name": "s", "type": "string"}]}]}]}]},
    {"name": "list", "type": ["null", {"type": "array", "items": ["null", "int"]}]},
    {"name": "places", "type": ["null", {"type": "array", "items": "Deeper"}]},
    {"name": "map", "type": ["null", {"type": "map", "values": ["null", "long"]}]}]}"#;

const TABLES: &str = r#"
[pipelines.shop.tables.kinds]
topic = "{topic}"
schema = "{dir}/kinds.avsc"
tombstones = "keep"
metadata = ["__topic", "__partition", "__offset", "__timestamp", "__key", "__headers", "__deleted"]

[pipelines.shop.tables.parted]
topic = "{topic}"
schema = "{dir}/kinds.avsc"
partition_by = ["city", "yes", "i", "l", "f", "d", "day", "at", "wall", "large", "small"]
"#;

const COLUMNS: [&str; 20] = [
    "id", "city", "yes", "i", "l", "f", "d", "bytes", "day", "at", "wall", "clock", "large", "small", "uuid", "mood", "deep", "list",
    "places", "map",
];

/// Records with values for every column, and how each reads.
const RECORDS: [(&str, &str); 3] = [
    (
        r#"{"id": 1, "city": "Bern", "yes": true, "i": -2147483648, "l": -9223372036854775808, "f": 1.5, "d": -0.1, "bytes": "AP/+",
            "day": "2024-02-29", "at": "1969-12-31T23:59:59.999999Z", "wall": "2024-02-29T12:34:56.789012", "clock": 86399999999,
            "large": "-9999999999999999999999999999.9999999999", "small": -999.99, "uuid": "5f0c6a2e-8d3b-4c61-9a58-5c7f0e2d1b34",
            "mood": "ok", "deep": {"n": 1, "deeper": {"s": "ü"}}, "list": [1, null, 3], "places": [{"s": "a"}, {"s": ""}],
            "map": {"k": 1, "é": null}}"#,
        "1|Bern|true|-2147483648|-9223372036854775808|1.5|-0.1|00fffe|2024-02-29|1969-12-31T23:59:59.999999Z|2024-02-29T12:34:56.789012\
         |86399999999|-9999999999999999999999999999.9999999999|-999.99|5f0c6a2e-8d3b-4c61-9a58-5c7f0e2d1b34|ok\
         |{n: 1, deeper: {s: ü}}|[1, NULL, 3]|[{s: a}, {s: }]|{k: 1, é: NULL}",
    ),
    (
        r#"{"id": 2, "city": "Zürich", "yes": false, "i": 2147483647, "l": 9223372036854775807, "f": -3.4028235e38,
            "d": 1.7976931348623157e308, "bytes": "", "day": "0001-01-01", "at": "9999-12-31T23:59:59.999999Z",
            "wall": "0001-01-01T00:00:00", "clock": 0, "large": "0.0000000001", "small": 0, "uuid": "", "mood": "sad",
            "deep": {"n": null, "deeper": null}, "list": [], "places": [], "map": {}}"#,
        "2|Zürich|false|2147483647|9223372036854775807|-3.4028235e38|1.7976931348623157e308||0001-01-01|9999-12-31T23:59:59.999999Z\
         |0001-01-01T00:00:00|0|0.0000000001|0.00||sad|{n: NULL, deeper: NULL}|[]|[]|{}",
    ),
    (
        r#"{"id": 3}"#,
        "3|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL",
    ),
];

/// Values of a partition whose folders need care.
const CITIES: [&str; 13] = [
    "",
    " ",
    "a b",
    "a/b",
    "50 %",
    "%20",
    "%2520",
    "a=b&c",
    "a+b:c?d#e",
    "..",
    "東京",
    "\"it's\"\\n",
    NULL_FOLDER,
];
const FIRST_CITY: usize = 10;
/// What the folder of null is called. polars, which takes a partition's values from there, cannot tell a text from it.
const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";

/// When all records were made.
const MADE_MS: i64 = 1_709_210_096_789;

fn city_record(place: usize) -> String {
    serde_json::json!({"id": FIRST_CITY + place, "city": CITIES[place]}).to_string()
}

/// Produces the records and drains them into the two tables. Returns the topic.
async fn drain(site: &Site) -> String {
    let broker = Broker::shared();
    // The records are old, and retention goes by that.
    let topic = broker.topic("kinds", 1, &[("retention.ms", "-1")]).await;
    let producer = broker.producer(&[]);
    let values = RECORDS.iter().map(|(value, _)| (*value).to_owned());
    let values = values.chain((0..CITIES.len()).map(city_record)).map(Some).chain([None]);
    for (at, value) in values.enumerate() {
        let key = at.to_string();
        let mut record = BaseRecord::to(&topic).partition(0).key(&key).timestamp(MADE_MS);
        if let Some(value) = &value {
            record = record.payload(value);
        }
        if at == 0 {
            let header = |key, value| Header { key, value };
            let headers = OwnedHeaders::new().insert(header("h", Some(&b"\x00\xff"[..])));
            record = record.headers(headers.insert(header("h", None)));
        }
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("the producer takes the record");
    }
    producer
        .flush(std::time::Duration::from_secs(60))
        .expect("the broker takes the records");
    std::fs::write(site.path("kinds.avsc"), SCHEMA).unwrap();
    let config = format!(
        "lake = \"{{dir}}/lake\"\nstate = \"{{dir}}/state\"\nhttp = {{ address = \"\" }}\n[pipelines.shop.kafka]\nbrokers = \"{}\"\n{}",
        broker.bootstrap(),
        TABLES.replace("{topic}", &topic)
    );
    site.catch_up(&site.configure("kinds", &config)).await;
    topic
}

/// Each of these readers sees every record as it was produced, whatever its partition is called.
pub async fn are_read_by(readers: &[Reader]) {
    let site = Site::new();
    let topic = drain(&site).await;
    for reader in readers {
        all_are_read(*reader, &site, &topic).await;
        partitions_are_read(*reader, &site).await;
    }
}

/// All rows of a table.
fn newest(site: &Site, table: &str) -> Question {
    Question::Version(history::read(&site.table(table)).last().expect("the table has versions").version)
}

async fn all_are_read(reader: Reader, site: &Site, topic: &str) {
    let files = reader
        .ask(&site.table("kinds"), &[newest(site, "kinds")], &site.out())
        .await
        .concat();
    let mut expected: Vec<String> = RECORDS.iter().map(|(_, row)| (*row).to_owned()).collect();
    expected.extend((0..CITIES.len()).map(|place| format!("{}|{}{}", FIRST_CITY + place, CITIES[place], "|NULL".repeat(18))));
    expected.push("NULL".to_owned() + &"|NULL".repeat(19));
    expected.sort();
    assert_eq!(texts(&files, &COLUMNS), expected, "{reader:?}");

    let columns = [
        "__offset",
        "__topic",
        "__partition",
        "__timestamp",
        "__key",
        "__headers",
        "__deleted",
    ];
    let last = RECORDS.len() + CITIES.len();
    let row = |at: usize| {
        let key: String = at.to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
        let headers = if at == 0 {
            "[{key: h, value: 00ff}, {key: h, value: NULL}]"
        } else {
            "[]"
        };
        format!("{at}|{topic}|0|2024-02-29T12:34:56.789Z|{key}|{headers}|{}", at == last)
    };
    let mut expected: Vec<String> = (0..=last).map(row).collect();
    expected.sort();
    assert_eq!(texts(&files, &columns), expected, "{reader:?}");
}

async fn partitions_are_read(reader: Reader, site: &Site) {
    let city = |place: usize| Condition {
        column: "city",
        kind: "string",
        is: "=",
        value: Some(CITIES[place].to_owned()),
    };
    let null = Condition {
        is: "null",
        value: None,
        ..city(0)
    };
    let mut asked = vec![newest(site, "parted"), Question::Where(null)];
    // As a partition's value the empty text is null.
    asked.extend((1..CITIES.len()).map(|place| Question::Where(city(place))));
    let answers = reader.ask(&site.table("parted"), &asked, &site.out()).await;
    let mut expected: Vec<String> = RECORDS.iter().map(|(_, row)| (*row).to_owned()).collect();
    let is_null = |place: &usize| CITIES[*place].is_empty() || (reader == Reader::Polars && CITIES[*place] == NULL_FOLDER);
    let value = |place: usize| if is_null(&place) { "NULL" } else { CITIES[place] };
    expected.extend((0..CITIES.len()).map(|place| format!("{}|{}{}", FIRST_CITY + place, value(place), "|NULL".repeat(18))));
    expected.sort();
    assert_eq!(texts(&answers[0], &COLUMNS), expected, "{reader:?}");

    let nulls = (0..CITIES.len()).filter(is_null).map(|place| (FIRST_CITY + place).to_string());
    let nulls: Vec<String> = nulls.chain(["3".to_owned()]).collect();
    assert_eq!(texts(&answers[1], &["id"]), nulls, "{reader:?}");
    for (place, answer) in (1..).zip(&answers[2..]) {
        let expected: Vec<String> = (!is_null(&place)).then(|| (FIRST_CITY + place).to_string()).into_iter().collect();
        assert_eq!(texts(answer, &["id"]), expected, "{reader:?} of {:?}", CITIES[place]);
    }
}
