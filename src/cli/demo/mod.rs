//! `alluvium demo`: the whole story without any server.
//!
//! A broker inside of this process, a topic with changes of orders as Debezium writes them, and the same pipeline that `alluvium run`
//! runs: one table with the current orders, and one with every event. Half-way it is stopped and started again. Then the tables are
//! asked, by version, by time and by source position, and each answer is compared with the fold of the changes up to there.

mod broker;
mod changes;
mod folder;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::array::cast::AsArray;
use arrow::datatypes::{DataType, Decimal128Type, Int64Type};
use arrow::util::pretty::pretty_format_batches;
use clap::Args;
use indicatif::{HumanCount, HumanDuration};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::broker::Broker;
use self::changes::{Changes, Summary};
use super::history;
use super::memory::with_budgets;
use crate::config::{Document, Reach};
use crate::error::{Error, Result};
use crate::log::When;
use crate::pipeline::all::{Together, run_all};
use crate::pipeline::resolve::{Resolved, Storage, resolve};
use crate::pipeline::tables::open_store;
use crate::position::{Checkpoint, Lane, Position};
use crate::query::{self, Named};
use crate::shell::word;
use crate::status::Board;

const TOPIC: &str = "orders";
const PARTITIONS: usize = 4;
/// Some 2 MB in each partition: well within what the broker keeps.
const WAVE: u64 = 25_000;
/// Every run makes the same changes.
const SEED: u64 = 42;
/// A wave that is not in the tables after so long never will be.
const WAVE_MAX: Duration = Duration::from_secs(120);
const QUERY: &str = "SELECT status, count(*) AS orders, sum(amount) AS amount FROM orders GROUP BY status ORDER BY status";

#[derive(Debug, Args)]
pub(super) struct DemoArguments {
    /// Where the tables go; a folder of an earlier demo is emptied first
    #[arg(long, value_name = "FOLDER", default_value = "demo")]
    path: PathBuf,
    /// How many changes are made
    #[arg(long, value_name = "N", default_value_t = 300_000, hide = true)]
    changes: u64,
}

pub(super) async fn demo(arguments: &DemoArguments) -> Result<ExitCode> {
    let begun = Instant::now();
    let folder = folder::prepare(&arguments.path)?;
    let mut broker = Broker::start(TOPIC, PARTITIONS)?;
    let text = config(&broker.address());
    let file = folder::configure(&folder, &text)?;
    say(&format!(
        "A broker listens at {}. The pipeline, in {}:\n\n{text}",
        broker.address(),
        file.display()
    ))?;

    let mut changes = Changes::new(SEED);
    let moments = fill(&file, &mut broker, &mut changes, arguments.changes).await?;
    let tables = tables(&folder)?;
    let entries = history::read(&tables[0], 8).await?;
    say(&format!(
        "The newest versions of the table `orders`:\n\n{}",
        history::table(&entries)
    ))?;
    ask(&tables, &moments, &folder).await?;
    check_audit(&tables, &changes).await?;
    say(&format!(
        "Every number above was compared with the fold of the changes. It took {}.\n\n\
         The tables are in {}. Read on, for example with Python (pip install deltalake):\n\n  {}\n",
        HumanDuration(begun.elapsed()),
        folder.display(),
        python_line(&folder),
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// What a user would write for it.
fn config(brokers: &str) -> String {
    format!(
        r#"lake = "."
http = {{ address = "" }}

[pipelines.shop]
kafka = {{ brokers = "{brokers}" }}
commit = {{ interval = "500 ms" }}

[pipelines.shop.tables.orders] # the current orders: one row per key
topic = "{TOPIC}"
format = "debezium-json"
schema = "orders.avsc"
key = ["id"]

[pipelines.shop.tables.orders_audit] # every event, from the same topic
topic = "{TOPIC}"
format = "debezium-json"
schema = "orders.avsc"
metadata = ["__op", "__partition", "__offset", "__source_ts_ms"]
"#
    )
}

/// A state of the orders: where the topic stood, and what a query must tell.
struct Moment {
    mark: Checkpoint,
    expected: Summary,
}

/// Publishes the changes in waves, while the pipeline runs; it is stopped and started again half-way. Three moments are kept: an early
/// one, the one of the restart, and the last.
async fn fill(file: &Path, broker: &mut Broker, changes: &mut Changes, count: u64) -> Result<Vec<Moment>> {
    let waves = count.div_ceil(WAVE).max(3);
    let kept = [waves / 4, waves / 2, waves - 1];
    let mut moments = Vec::new();
    let mut pipeline = Running::start(file)?;
    let begun = Instant::now();
    for wave in 0..waves {
        let (from, to) = (count * wave / waves, count * (wave + 1) / waves);
        for _ in from..to {
            for event in changes.next() {
                broker.send(&event)?;
            }
        }
        broker.flush()?;
        pipeline.wait_for(broker.ends()).await?;
        if kept.contains(&wave) {
            moments.push(Moment {
                mark: mark(broker.ends()),
                expected: changes.summary(),
            });
        }
        if wave == waves / 2 {
            pipeline.stop().await?;
            pipeline = Running::start(file)?;
            let ends: Vec<u64> = broker.ends().to_vec();
            say(&format!(
                "{} changes are in; the pipeline was stopped and started again behind {}.\n",
                HumanCount(to),
                mark(&ends)
            ))?;
        }
    }
    pipeline.stop().await?;
    let ops: Vec<String> = changes
        .ops
        .iter()
        .map(|(op, count)| format!("{} \"{op}\"", HumanCount(*count)))
        .collect();
    say(&format!(
        "{} changes ({}) are in both tables, after {:.1} s.\n",
        HumanCount(count),
        ops.join(", "),
        begun.elapsed().as_secs_f64()
    ))?;
    Ok(moments)
}

/// The pipeline of the demo, under way.
struct Running {
    task: std::pin::Pin<Box<dyn Future<Output = Result<()>>>>,
    board: Board,
    stop: CancellationToken,
}

impl Running {
    fn start(file: &Path) -> Result<Self> {
        let (config, resolved): (_, Vec<Resolved>) = resolve(Document::read(file, Reach::All)?)?;
        let (board, stop) = (Board::default(), CancellationToken::new());
        let together = Together {
            board: board.clone(),
            grace: config.grace.0,
            until_caught_up: false,
        };
        let task = Box::pin(run_all(with_budgets(&config, resolved), together, stop.clone()));
        Ok(Self { task, board, stop })
    }

    /// Waits until both tables hold everything before these offsets.
    async fn wait_for(&mut self, ends: &[u64]) -> Result<()> {
        let deadline = Instant::now() + WAVE_MAX;
        let done = async {
            while !holds(&self.board, ends) && Instant::now() < deadline {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            ended = &mut self.task => return ended.and(Err(Error::bug("the pipeline of the demo ended too early"))),
            () = done => {}
        }
        let late = || {
            Error::bug(format!(
                "the tables of the demo do not hold {} after {WAVE_MAX:?}: {:?}",
                mark(ends),
                self.board.read()
            ))
        };
        if holds(&self.board, ends) { Ok(()) } else { Err(late()) }
    }

    async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.task.await
    }
}

fn holds(board: &Board, ends: &[u64]) -> bool {
    let status = board.read().remove("shop").unwrap_or_default();
    let wanted = mark(ends);
    ["orders", "orders_audit"].iter().all(|table| {
        let positions = status.tables.get(*table).map(|table| &table.positions);
        wanted.iter().all(|(lane, at)| {
            positions
                .and_then(|positions| positions.get(lane.name()))
                .is_some_and(|held| *held >= at.0)
        })
    })
}

/// The last positions of partitions that end there.
fn mark(ends: &[u64]) -> Checkpoint {
    let lane = |(partition, end): (usize, &u64)| Some((Lane::kafka(TOPIC, partition as i32, None), Position(end.checked_sub(1)?)));
    ends.iter().enumerate().filter_map(lane).collect()
}

fn tables(folder: &Path) -> Result<Vec<Named>> {
    let named = |name: &str| {
        let url = crate::config::url_of(&folder.join(name).to_string_lossy()).map_err(Error::bug)?;
        Ok(Named {
            name: name.to_owned(),
            store: open_store(&url, &Storage::default())?,
            url,
        })
    };
    ["orders", "orders_audit"].into_iter().map(named).collect()
}

/// The same query at three moments: by version, by time, and by source position.
async fn ask(tables: &[Named], moments: &[Moment], folder: &Path) -> Result<()> {
    let program = std::env::current_exe().unwrap_or_else(|_| "alluvium".into());
    say(&format!("The same query at three moments:\n\n$ sql=\"{QUERY}\"\n"))?;
    for (number, moment) in moments.iter().enumerate() {
        let by_mark = When::Mark(moment.mark.clone());
        let version = query::query("SELECT 1 FROM orders LIMIT 1", tables, &by_mark)
            .await?
            .versions
            .first()
            .map_or(0, |(_, version)| *version);
        let (when, option) = match number {
            0 => (When::Version(version), format!("--version {version}")),
            1 => {
                let made = time_of(&tables[0], version).await?;
                (When::Time(made), format!("--timestamp {}", history::time(made)))
            }
            _ => (by_mark, format!("--position {}", moment.mark)),
        };
        let batches = query::query(QUERY, tables, &when).await?.collect().await?;
        let told = pretty_format_batches(&batches).map_err(|e| Error::bug("an answer cannot be printed").because(e))?;
        say(&format!(
            "$ {} query \"$sql\" --config {} {option}\n{told}\n",
            word(&program.to_string_lossy()),
            word(&folder.join("demo.toml").to_string_lossy())
        ))?;
        let found = summary(&batches)?;
        if found != moment.expected {
            return Err(Error::bug(format!(
                "the answer for {} is wrong: {found:?} instead of {:?}",
                moment.mark, moment.expected
            )));
        }
    }
    Ok(())
}

/// When a version was made.
async fn time_of(table: &Named, version: u64) -> Result<i64> {
    let entries = history::read(table, usize::MAX).await?;
    let found = entries
        .iter()
        .find(|entry| entry.version == version)
        .map(|entry| entry.timestamp_ms);
    found.ok_or_else(|| Error::bug(format!("version {version} of the demo's table has no history")))
}

fn summary(batches: &[RecordBatch]) -> Result<Summary> {
    let mut summary = Summary::new();
    for batch in batches {
        let status = arrow::compute::cast(batch.column(0), &DataType::Utf8).map_err(|e| Error::bug("a status is no text").because(e))?;
        let orders = batch.column(1).as_primitive::<Int64Type>();
        let amount = batch.column(2).as_primitive::<Decimal128Type>();
        for row in 0..batch.num_rows() {
            let cents = i64::try_from(amount.value(row)).map_err(|e| Error::bug("a sum is too large").because(e))?;
            summary.insert(status.as_string::<i32>().value(row).to_owned(), (orders.value(row), cents));
        }
    }
    Ok(summary)
}

/// The other table has every event once.
async fn check_audit(tables: &[Named], changes: &Changes) -> Result<()> {
    let sql = "SELECT __op, count(*), count(DISTINCT __partition * 1000000000000 + __offset) FROM orders_audit GROUP BY __op";
    let batches = query::query(sql, tables, &When::Latest).await?.collect().await?;
    let mut found = std::collections::BTreeMap::new();
    for batch in &batches {
        let op = arrow::compute::cast(batch.column(0), &DataType::Utf8).map_err(|e| Error::bug("an op is no text").because(e))?;
        let counts = [1, 2].map(|column| batch.column(column).as_primitive::<Int64Type>());
        for row in 0..batch.num_rows() {
            found.insert(
                op.as_string::<i32>().value(row).to_owned(),
                counts.map(|count| count.value(row) as u64),
            );
        }
    }
    let expected = changes.ops.iter().map(|(op, count)| ((*op).to_owned(), [*count; 2])).collect();
    if found == expected {
        return say("The table `orders_audit` has every event once.\n");
    }
    Err(Error::bug(format!("the audit table is wrong: {found:?} instead of {expected:?}")))
}

/// The line with which Python reads the newest orders. Its `to_pyarrow_table` refuses deletion vectors; its SQL knows them.
fn python_line(folder: &Path) -> String {
    // JSON's escapes are among Python's, and mean the same there.
    let table = serde_json::Value::from(folder.join("orders").to_string_lossy()).to_string();
    let program = format!(
        "from deltalake import DeltaTable, QueryBuilder; print(QueryBuilder().register(\"orders\", DeltaTable({table}))\
         .execute(\"SELECT status, count(*) AS orders FROM orders GROUP BY status\").read_all())"
    );
    format!("python3 -c {}", word(&program))
}

/// A part of the story.
fn say(text: &str) -> Result<()> {
    super::print(&format!("{text}\n"))
}
