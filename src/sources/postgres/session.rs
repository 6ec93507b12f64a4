//! The session that reads the slot, which only one process can have: whoever has it is the one that writes the tables.

use std::sync::Arc;

use tracing::info;

use super::changes::{Begin, Changes, Reading};
use super::connection::{self, Control, Replication, Stream};
use super::spool::Spool;
use super::streaming::Streaming;
use super::types::Types;
use super::{Feed, Settings, catalog, slot};
use crate::error::{Error, Result};
use crate::position::Lsn;
use crate::reject::DeadLetters;

/// Transactions in progress may take this part of the budget; the rest of them lies in files.
const SPOOL_SHARE: usize = 16;
/// What is read ahead from the connection may take this part.
const READ_AHEAD_SHARE: usize = 8;
/// What is taken of a stream that nobody reads.
const UNREAD_BYTES: usize = 64 << 10;

/// Begins to read at the lowest position that a table holds; or, for the sake of transactions that are prepared, where the slot is.
pub(super) async fn start(settings: Settings, control: Arc<Control>, types: Types, feeds: Vec<Feed>, budget: usize) -> Result<Streaming> {
    let lowest = feeds.iter().filter_map(Feed::held).min().unwrap_or(0);
    let stops = feeds
        .iter()
        .flat_map(|feed| feed.held().into_iter().chain(feed.marks.iter().map(|at| at.0)));
    let stops: Vec<u64> = stops.filter(|&at| at >= lowest).collect();
    let from = if settings.two_phase { 0 } else { lowest };
    let until = if settings.until_caught_up {
        Some(catalog::end_of_wal(&control).await?)
    } else {
        None
    };
    let read_ahead = (budget / READ_AHEAD_SHARE).clamp(1 << 20, 64 << 20);
    let stream = stream(&settings, &control, from, read_ahead).await?;
    // Now that it is ours, nobody else moves it.
    let began = slot::confirmed(&control, &settings.slot).await?;
    if began > lowest {
        let what = format!(
            "another process has read the replication slot `{}` up to {} meanwhile: this one opens again from the log",
            settings.slot,
            Lsn(began)
        );
        return Err(Error::transient("slot_active", what));
    }
    info!(pipeline = %settings.pipeline, slot = settings.slot, lsn = %Lsn(began.max(from)), "following");
    let tables = feeds.into_iter().filter_map(|feed| {
        Some(Begin {
            held: feed.held()?,
            followed: feed.followed,
            known: feed.known,
        })
    });
    let changes = Changes::new(
        settings.lane.clone(),
        tables.collect(),
        Reading {
            types,
            binary: settings.binary,
            specials: settings.specials,
            learned: settings.learned.clone(),
        },
        DeadLetters::new(&settings.pipeline, &settings.delivered),
        settings.letters.clone(),
    );
    let spool = Spool::new(&settings.spool, budget / SPOOL_SHARE);
    Ok(Streaming::new(&settings, stream, changes, spool, stops, began, until))
}

/// Has the slot, and reads nothing, while no table can be followed yet: another process would copy the same tables.
pub(super) async fn hold(settings: &Settings, control: &Control) -> Result<Stream> {
    // What came before is not sent then: it may be of a time without the publication, which the server does not get over.
    let end = catalog::end_of_wal(control).await?;
    stream(settings, control, end, UNREAD_BYTES).await
}

async fn stream(settings: &Settings, control: &Control, from: u64, buffer_bytes: usize) -> Result<Stream> {
    let mut options = vec![("publication_names", connection::identifier(&settings.publication))];
    // Streaming of transactions in progress is of version 2, which all servers know that are still maintained.
    options.push(("proto_version", if settings.two_phase { "3" } else { "2" }.to_owned()));
    options.push(("streaming", if settings.learned.in_whole() { "off" } else { "on" }.to_owned()));
    if settings.two_phase {
        options.push(("two_phase", "on".to_owned()));
    }
    if settings.binary {
        options.push(("binary", "true".to_owned()));
    }
    let connection = Replication::open(&settings.address).await?.beside(control);
    connection.start(&settings.slot, from, &options, buffer_bytes).await
}
