//! Changes that keep coming while a test goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use super::changes::Changes;
use super::model::Model;
use super::shop::{LIVE_MAX, Source};

/// Before the stream begins, so that the program is killed and frozen at full speed too.
const BACKLOG: usize = 100_000;

/// Produces into a topic of four partitions until it is told to stop: first a backlog, then at a rate that the program keeps up with.
pub struct Stream {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Model>,
}

impl Stream {
    pub fn start(source: &Source, per_second: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut producer = source.fill(BACKLOG);
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut changes = Changes::new(42, LIVE_MAX);
            while !stopped.load(Ordering::Relaxed) {
                changes.by_ref().take(per_second / 100).for_each(|change| producer.send(&change));
                sleep(Duration::from_millis(10)).await;
            }
            tokio::task::spawn_blocking(move || {
                producer.flush();
                producer.model
            })
            .await
            .expect("the producer does not panic")
        });
        Self { stop, task }
    }

    pub async fn finish(self) -> Model {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the producer does not panic")
    }
}
