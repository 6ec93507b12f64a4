//! A source in memory: lanes that keep their changes until they are released, as a topic or a slot does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;

use crate::batch::{ChangeBatch, Flow, Op};
use crate::error::Result;
use crate::position::{Checkpoint, Lane, Position};
use crate::sources::{Resume, Source};
use crate::table::TableId;

/// What happened at one position of a lane: changes to one or more tables that are seen together.
#[derive(Clone, Debug)]
pub struct Event {
    pub position: Position,
    pub changes: Vec<(TableId, RecordBatch, Vec<Op>)>,
}

#[derive(Debug, Default)]
struct State {
    lanes: BTreeMap<Lane, Vec<Event>>,
    released: Checkpoint,
}

/// The server side. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryLanes(Arc<Mutex<State>>);

impl MemoryLanes {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event to the end of a lane; positions must rise.
    pub fn push(&self, lane: &Lane, event: Event) {
        self.lock().lanes.entry(lane.clone()).or_default().push(event);
    }

    /// Everything that was ever pushed.
    pub fn events(&self) -> BTreeMap<Lane, Vec<Event>> {
        self.lock().lanes.clone()
    }

    pub fn released(&self) -> Checkpoint {
        self.lock().released.clone()
    }

    /// The next event behind `position` that is still there.
    fn after(&self, lane: &Lane, position: Option<Position>) -> Option<Event> {
        let state = self.lock();
        let from = position.max(state.released.get(lane));
        state.lanes.get(lane)?.iter().find(|event| Some(event.position) > from).cloned()
    }
}

/// Reads all lanes in turn, one event and one mark at a time, and ends when all are read.
pub struct MemorySource {
    lanes: MemoryLanes,
    resume: Resume,
    read: Checkpoint,
    turn: usize,
    pending: VecDeque<Flow>,
}

impl MemorySource {
    pub fn open(lanes: &MemoryLanes, resume: Resume) -> Self {
        // A lane is read from the lowest position that any table holds; what a table has already is passed over for that table.
        let mut read = Checkpoint::default();
        for lane in lanes.lock().lanes.keys() {
            let lowest = resume.values().map(|held| held.get(lane)).min().flatten();
            if let Some(at) = lowest {
                read.set(lane.clone(), at);
            }
        }
        Self {
            lanes: lanes.clone(),
            resume,
            read,
            turn: 0,
            pending: VecDeque::new(),
        }
    }

    fn read_event(&mut self, lane: &Lane, event: Event) {
        for (table, rows, ops) in event.changes {
            let held = self.resume.get(&table).and_then(|held| held.get(lane));
            if held.is_none_or(|held| held < event.position) {
                self.pending.push_back(Flow::Rows(ChangeBatch {
                    table,
                    rows,
                    ops,
                    unchanged: None,
                    newest_ms: None,
                    permit: None,
                }));
            }
        }
        self.read.set(lane.clone(), event.position);
        self.pending.push_back(Flow::Mark(self.read.clone()));
    }
}

impl Source for MemorySource {
    async fn next(&mut self) -> Result<Option<Flow>> {
        if self.pending.is_empty() {
            let lanes: Vec<Lane> = self.lanes.lock().lanes.keys().cloned().collect();
            let next = (0..lanes.len()).map(|step| &lanes[(self.turn + step) % lanes.len()]);
            let found = next
                .into_iter()
                .find_map(|lane| Some((lane, self.lanes.after(lane, self.read.get(lane))?)));
            self.turn += 1;
            if let Some((lane, event)) = found {
                self.read_event(lane, event);
            }
        }
        Ok(self.pending.pop_front())
    }

    async fn release(&mut self, upto: &Checkpoint) -> Result<()> {
        let mut state = self.lanes.lock();
        state.released = std::mem::take(&mut state.released).join(upto);
        Ok(())
    }
}
