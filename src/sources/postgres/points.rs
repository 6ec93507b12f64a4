//! Where tables are copied: the others have a mark there, so that all of them show the same moment.
//!
//! The server gives a consistent point when the transactions have ended that run, and the stream waits for that, but not for long ones. Where
//! it is past the point when that comes, the flow is opened again, and another point taken.

use std::time::Duration;

use tokio::sync::watch;
use tracing::warn;

use super::learned::Learned;
use super::{PostgresSource, Stage, mark, set_back};
use crate::batch::Flow;
use crate::position::{Lsn, Position};

/// How long the stream waits for a point: longer where it was past the last one. At last it goes on without a mark there.
const WAITS: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(20), Duration::from_secs(60)];

/// How long it waits this time.
pub(super) fn wait(learned: &Learned) -> Duration {
    WAITS[learned.points_passed().min(WAITS.len() - 1)]
}

/// Returns when the server has told it.
pub(super) async fn is_told(point: &mut watch::Receiver<Option<u64>>) {
    // Nobody will tell it where copies have failed; they say why.
    drop(point.wait_for(Option::is_some).await);
}

impl PostgresSource {
    /// Has the stream make a mark where tables are copied: there all show the same moment. Where it is past that, another point is taken.
    pub(super) fn meet_point(&mut self) {
        if self.copied.is_none() {
            self.copied = *self.point.borrow();
        }
        let streaming = self.streaming.as_mut().and_then(Stage::get_mut);
        let (Some(streaming), Some(point), None) = (streaming, self.copied, self.meets_point) else {
            return;
        };
        let (meets, learned) = (streaming.stop_at(point), &self.settings.learned);
        let may_wait = learned.point_was(meets) < WAITS.len();
        if !meets && !may_wait {
            let pipeline = &*self.settings.pipeline;
            warn!(pipeline, lsn = %Lsn(point), "tables are copied at a position where the others have no mark: their first versions beside it show a later moment");
        }
        self.meets_point = Some(meets || !may_wait);
    }

    /// Hands on the tables that are whole, and the mark at which they are published: where others are followed, not before these have come to
    /// the point. At an earlier mark the letters would be published alone. False: there are none.
    pub(super) fn publish_copies(&mut self) -> bool {
        let Some(point) = self.copied else { return false };
        let streaming = match &mut self.streaming {
            None => None,
            Some(stage) => match stage.get_mut() {
                Some(streaming) if streaming.marked() >= point => Some(streaming),
                _ => return false,
            },
        };
        let may_mark = match &mut self.copying {
            None => true,
            Some(stage) => {
                let Some(copies) = stage.get_mut() else { return false };
                if !copies.hand_on(&mut self.ready) {
                    return false;
                }
                copies.may_publish()
            }
        };
        match streaming {
            _ if !may_mark => {}
            None => self.ready.push_back(mark(&self.settings.lane, point)),
            Some(streaming) => streaming.mark_again(&mut self.ready),
        }
        true
    }

    /// Notes a mark at which copies are published, when it is handed over. Beside it stands how far the slot is: see [`set_back`].
    pub(super) fn note(&mut self, flow: &mut Flow) {
        let Flow::Mark(mark) = flow else { return };
        if let (Some(point), None) = (self.copied, &self.copying) {
            self.has_copied |= mark.get(&self.settings.lane) >= Some(Position(point));
        }
        if let Some(restart) = self.progress.restart() {
            mark.set(set_back::lane(&self.settings.lane), Position(restart));
        }
    }
}
