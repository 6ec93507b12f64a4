//! An object store with faults: what a disk, a network or a service does on a bad day, by rule and by seed.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::{Handle, Id};
use tokio::sync::Semaphore;

/// What is asked of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A file put whole, or the beginning of one that is put in parts.
    Put,
    Part,
    /// The end of a file that was put in parts.
    Complete,
    /// Giving such a file up.
    Abort,
    Get,
    List,
    Delete,
}

/// The error that the caller sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// A time-out, a 5xx, a lost connection.
    Unreachable,
    /// 412, or a retry of the client that met its own success.
    AlreadyExists,
    /// 409 and its kin.
    Precondition,
    /// 403, or an expired token.
    Denied,
    /// No space left on the device.
    Full,
}

impl Wrong {
    pub const ALL: [Wrong; 5] = [
        Wrong::Unreachable,
        Wrong::AlreadyExists,
        Wrong::Precondition,
        Wrong::Denied,
        Wrong::Full,
    ];

    fn error(self, path: &Path) -> Error {
        let (path, source) = (path.to_string(), std::io::Error::other("injected"));
        match self {
            Wrong::Unreachable => Error::Generic {
                store: "FaultyStore",
                source: Box::new(source),
            },
            Wrong::AlreadyExists => Error::AlreadyExists {
                path,
                source: Box::new(source),
            },
            Wrong::Precondition => Error::Precondition {
                path,
                source: Box::new(source),
            },
            Wrong::Denied => Error::PermissionDenied {
                path,
                source: Box::new(source),
            },
            Wrong::Full => Error::Generic {
                store: "FaultyStore",
                source: Box::new(std::io::Error::from(std::io::ErrorKind::StorageFull)),
            },
        }
    }
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing happens, and the caller gets the error.
    Reject(Wrong),
    /// It happens, and the caller gets the error all the same.
    FailAfter(Wrong),
    /// It waits at the gate before it happens.
    Hold(Gate),
    /// It takes its time before it happens.
    Slow(Duration),
    /// It happens at once, and the answer takes its time.
    SlowAfter(Duration),
    /// The caller gets an error, or has gone, while a put is still on its way: it happens later.
    Stray(Duration),
    /// A put is said to have happened, and has not.
    Forget,
    /// A put happens whatever its condition says, and a list has all there is wherever it is to begin, as in a store that knows neither.
    Careless,
}

/// Where calls wait until the test opens it.
#[derive(Clone, Debug)]
pub struct Gate {
    waiting: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Gate {
    pub fn new() -> Self {
        Self {
            waiting: Arc::new(Semaphore::new(0)),
            open: Arc::new(Semaphore::new(0)),
        }
    }

    /// Returns when a call has come to the gate.
    pub async fn reached(&self) {
        self.waiting.acquire().await.expect("never closed").forget();
    }

    /// Lets one call pass.
    pub fn open(&self) {
        self.open.add_permits(1);
    }

    async fn pass(&self) {
        self.waiting.add_permits(1);
        self.open.acquire().await.expect("never closed").forget();
    }
}

type Matches = Box<dyn Fn(&Path) -> bool + Send + Sync>;

/// Which calls go wrong, and how.
pub struct Rule {
    op: Op,
    matches: Matches,
    skip: usize,
    times: usize,
    probability: f64,
    fault: Fault,
}

impl Rule {
    /// All calls of this kind to paths that contain `part`.
    pub fn new(op: Op, part: &str, fault: Fault) -> Self {
        let part = part.to_owned();
        Self::matching(op, move |path| path.as_ref().contains(&part), fault)
    }

    pub fn matching(op: Op, matches: impl Fn(&Path) -> bool + Send + Sync + 'static, fault: Fault) -> Self {
        Self {
            op,
            matches: Box::new(matches),
            skip: 0,
            times: usize::MAX,
            probability: 1.0,
            fault,
        }
    }

    /// Lets the first so many calls pass.
    pub fn after(self, skip: usize) -> Self {
        Self { skip, ..self }
    }

    /// Only so many calls go wrong.
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// Each call goes wrong with this probability, by the store's seed.
    pub fn with_probability(self, probability: f64) -> Self {
        Self { probability, ..self }
    }
}

/// A store that does what its rules say; the first rule that fits decides.
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    /// The runtime of the test.
    home: Option<Id>,
    state: Arc<Mutex<State>>,
}

struct State {
    rules: Vec<Rule>,
    random: SmallRng,
    calls: Vec<(Op, Path)>,
}

impl FaultyStore {
    pub fn over(inner: Arc<dyn ObjectStore>) -> Self {
        Self::seeded(inner, 0)
    }

    pub fn seeded(inner: Arc<dyn ObjectStore>, seed: u64) -> Self {
        let state = State {
            rules: Vec::new(),
            random: SmallRng::seed_from_u64(seed),
            calls: Vec::new(),
        };
        Self {
            inner,
            home: Handle::try_current().ok().map(|handle| handle.id()),
            state: Arc::new(Mutex::new(state)),
        }
    }

    pub fn rule(&self, rule: Rule) {
        self.state.lock().expect("no test panics with the lock").rules.push(rule);
    }

    /// Everything works from now on.
    pub fn heal(&self) {
        self.state.lock().expect("no test panics with the lock").rules.clear();
    }

    /// What was asked so far.
    pub fn calls(&self) -> Vec<(Op, Path)> {
        self.state.lock().expect("no test panics with the lock").calls.clone()
    }

    fn is_careless(&self, op: Op, path: &Path) -> bool {
        let state = self.state.lock().expect("no test panics with the lock");
        state
            .rules
            .iter()
            .any(|rule| rule.op == op && matches!(rule.fault, Fault::Careless) && (rule.matches)(path))
    }

    fn fault(&self, op: Op, path: &Path) -> Option<Fault> {
        let state = &mut *self.state.lock().expect("no test panics with the lock");
        state.calls.push((op, path.clone()));
        for rule in &mut state.rules {
            if rule.op != op || rule.times == 0 || !(rule.matches)(path) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if rule.probability < 1.0 && !state.random.random_bool(rule.probability) {
                continue;
            }
            rule.times -= 1;
            return Some(rule.fault.clone());
        }
        None
    }

    /// Does what the rules say around a call.
    async fn around<T>(&self, op: Op, path: &Path, call: impl Future<Output = Result<T>>) -> Result<T> {
        meet(self.fault(op, path), self.home, path, call).await
    }

    /// The same around a list.
    fn around_list(&self, prefix: Option<&Path>, list: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        let path = prefix.cloned().unwrap_or_default();
        let (fault, home) = (self.fault(Op::List, &path), self.home);
        futures::stream::once(async move { meet(fault, home, &path, async { Ok(list) }).await })
            .try_flatten()
            .boxed()
    }
}

/// Waits on the test's clock. Where the Delta library reads on a runtime of its own, whose clock nobody can pause, it does not wait.
async fn pause(home: Option<Id>, time: Duration) {
    if home.is_none_or(|home| home == Handle::current().id()) {
        tokio::time::sleep(time).await;
    }
}

/// A call, and what goes wrong with it.
async fn meet<T>(fault: Option<Fault>, home: Option<Id>, path: &Path, call: impl Future<Output = Result<T>>) -> Result<T> {
    match fault {
        Some(Fault::Reject(wrong)) => Err(wrong.error(path)),
        Some(Fault::FailAfter(wrong)) => call.await.and_then(|_| Err(wrong.error(path))),
        Some(Fault::Hold(gate)) => {
            gate.pass().await;
            call.await
        }
        Some(Fault::Slow(time)) => {
            pause(home, time).await;
            call.await
        }
        Some(Fault::SlowAfter(time)) => {
            let answer = call.await;
            pause(home, time).await;
            answer
        }
        Some(Fault::Careless | Fault::Stray(_) | Fault::Forget) | None => call.await,
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        if self.is_careless(Op::Put, path) {
            options.mode = PutMode::Overwrite;
        }
        match self.fault(Op::Put, path) {
            Some(Fault::Forget) => Ok(PutResult {
                e_tag: None,
                version: None,
            }),
            Some(Fault::Stray(time)) => {
                let (inner, path, home) = (Arc::clone(&self.inner), path.clone(), self.home);
                let error = Wrong::Unreachable.error(&path);
                tokio::spawn(async move {
                    pause(home, time).await;
                    inner.put_opts(&path, payload, options).await
                });
                Err(error)
            }
            fault => meet(fault, self.home, path, self.inner.put_opts(path, payload, options)).await,
        }
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.around(Op::Put, path, self.inner.put_multipart_opts(path, options)).await?;
        Ok(Box::new(FaultyUpload {
            inner,
            store: self.clone(),
            path: path.clone(),
        }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.around(Op::Get, path, self.inner.get_opts(path, options)).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let paths = paths.then(move |path| {
            let store = store.clone();
            async move {
                let path = path?;
                store.around(Op::Delete, &path, async { Ok(path.clone()) }).await
            }
        });
        self.inner.delete_stream(paths.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.around_list(prefix, self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.is_careless(Op::List, &prefix.cloned().unwrap_or_default()) {
            return self.list(prefix);
        }
        self.around_list(prefix, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.around(
            Op::List,
            &prefix.cloned().unwrap_or_default(),
            self.inner.list_with_delimiter(prefix),
        )
        .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.around(Op::Put, to, self.inner.copy_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    store: FaultyStore,
    path: Path,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (fault, home) = (self.store.fault(Op::Part, &self.path), self.store.home);
        let (path, part) = (self.path.clone(), self.inner.put_part(data));
        async move { meet(fault, home, &path, part).await }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let store = self.store.clone();
        store.around(Op::Complete, &self.path.clone(), self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        let store = self.store.clone();
        store.around(Op::Abort, &self.path.clone(), self.inner.abort()).await
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({:?})", self.inner)
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}
