//! Experts that stay in their files: a bounded cache of packed ones, filled by a thread that reads ahead.
//!
//! What rows are about to go through is known as soon as the router has chosen, so it is asked for in order, and the
//! thread reads the next expert while the current one is computed. One unit is one expert of one map: gate and up of a
//! layer, or down. Units of one size share slots. A unit that is stored packed is read straight into its slot; another is
//! read beside it and packed by whoever computes.
//!
//! A slot is given to another unit only when nobody holds the one in it. Units are taken up in the order in which they
//! were asked for and let go in the same order, so one slot of each size is enough to go on: whoever waits for a slot
//! waits for a unit that was asked for before.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tensor::{Bytes, OpError, Orientation, ReadError, WeightSource};

use crate::aligned::Aligned;
use crate::linear::Segment;
use crate::matrix::{Groups, Matrix};
use crate::pack::{Job, Stored};
use crate::pool::Pool;

/// Units read but not yet packed, at a time: one that is being packed and one that is being read.
const N_STAGED: usize = 2;

/// A past use counts half after as many uses as there are units in the cache, times this. Near 0 the unit that was used
/// last the longest ago would go, near infinity the one used least often; `docs/log.md` compares them.
const HALF_LIFE: f64 = 1.0;

/// What the cache has done, counted from the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExpertStats {
    /// Times that rows went through an expert of a map.
    pub n_asked: u64,
    /// Of those, the times it was in memory.
    pub n_hits: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Time that reading took, on the thread that reads.
    pub reading: Duration,
    /// Time that computing waited for reading.
    pub waiting: Duration,
    /// Bytes that slots and buffers may take at most.
    pub cache_bytes: usize,
    /// Whether what stays in memory is locked there, so that the system pages out something else.
    pub is_locked: bool,
}

impl ExpertStats {
    /// What was done since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            n_asked: self.n_asked - earlier.n_asked,
            n_hits: self.n_hits - earlier.n_hits,
            bytes_read: self.bytes_read - earlier.bytes_read,
            reading: self.reading.saturating_sub(earlier.reading),
            waiting: self.waiting.saturating_sub(earlier.waiting),
            ..*self
        }
    }
}

/// The experts of one map, in their files.
#[derive(Debug)]
pub(crate) struct Streamed {
    id: usize,
    parts: Vec<Origin>,
    n_in: usize,
    /// Whether all parts are stored as row groups.
    is_packed: bool,
    slot_bytes: usize,
    /// Bytes of the buffer that a unit is read into where it is not read into its slot.
    staging_bytes: usize,
}

/// One part of a map, in its file.
#[derive(Debug)]
struct Origin {
    source: WeightSource,
    /// The source's.
    bytes: Bytes,
    groups: Groups,
}

/// A packed expert in memory.
#[derive(Debug)]
pub(crate) struct Expert {
    slot: Aligned,
    /// Where each part's row groups begin.
    begins: Vec<usize>,
}

impl Expert {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.slot
    }
}

impl Streamed {
    fn new(id: usize, parts: Vec<(WeightSource, Groups)>) -> Result<Self, OpError> {
        let origin = |(source, groups): (WeightSource, Groups)| {
            let bytes = source.stored("matrix")?.clone();
            Ok(Origin { source, bytes, groups })
        };
        let parts = parts.into_iter().map(origin).collect::<Result<Vec<_>, OpError>>()?;
        let is_packed = parts.iter().all(|part| part.source.orientation() == Orientation::Packed);
        let rooms = || parts.iter().map(|part| Bytes::room(part.range(0).len())).sum();
        let packed = || parts.iter().map(|part| part.groups.matrix_bytes).sum();
        let (slot_bytes, staging_bytes) = if is_packed { (rooms(), 0) } else { (packed(), rooms()) };
        let n_in = parts.first().map_or(0, |part| part.source.shape()[2]);
        Ok(Self { id, parts, n_in, is_packed, slot_bytes, staging_bytes })
    }

    /// Reads all parts of `expert`, one after another, into `buffer`; returns where each begins.
    fn read(&self, expert: usize, buffer: &mut [u8]) -> Result<Vec<usize>, ReadError> {
        let (mut begins, mut rest, mut at) = (Vec::with_capacity(self.parts.len()), buffer, 0);
        for part in &self.parts {
            let range = part.range(expert);
            let (now, later) = rest.split_at_mut(Bytes::room(range.len()));
            begins.push(at + part.bytes.read(range, now)?);
            at += now.len();
            rest = later;
        }
        Ok(begins)
    }

    /// Packs what [`read`](Self::read) read into `slot`; returns where each part begins.
    fn pack(&self, pool: &Pool, (staged, begins): (&[u8], &[usize]), slot: &mut [u8]) -> Vec<usize> {
        let (mut packed, mut rest, mut at) = (Vec::with_capacity(self.parts.len()), slot, 0);
        for (Origin { source, groups, .. }, begin) in self.parts.iter().zip(begins) {
            let [_, n_out, n_in] = source.shape();
            let bytes = &staged[*begin..][..source.matrix_range(0).map_or(0, |range| range.len())];
            let (format, orientation) = (source.format(), source.orientation());
            let stored = Stored { bytes, format, orientation, shape: [1, n_out, n_in] };
            let (now, later) = rest.split_at_mut(groups.matrix_bytes);
            Job { stored, groups }.run(pool, now);
            packed.push(at);
            at += now.len();
            rest = later;
        }
        packed
    }

    fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.range(0).len()).sum()
    }
}

impl Origin {
    fn range(&self, expert: usize) -> Range<usize> {
        self.source.matrix_range(expert).unwrap_or(0..0)
    }
}

/// One expert of one map.
type Key = (usize, usize);

/// A unit on its way from whoever took it up to whoever computes.
enum Arrival {
    Packed(Arc<Expert>),
    /// As stored, with where its parts begin, and the slot that it is to be packed into.
    Stored {
        staged: Aligned,
        begins: Vec<usize>,
        slot: Aligned,
    },
    Failed(ReadError),
}

/// Slots of one size.
#[derive(Default)]
struct Class {
    /// Units of that size that there are.
    n_units: usize,
    /// Slots that there may be.
    n_most: usize,
    /// Slots that there are.
    n_made: usize,
    free: Vec<Aligned>,
}

/// A unit in its slot.
struct Resident {
    expert: Arc<Expert>,
    slot_bytes: usize,
    /// The logarithm (base 2) of how often it was used, recent uses counting more, at the time 0: what falls off between
    /// then and now is the same for all units.
    rank: f64,
}

#[derive(Default)]
struct State {
    classes: BTreeMap<usize, Class>,
    /// Whether `n_most` of all classes belongs to the maps that there are.
    is_planned: bool,
    staging_bytes: usize,
    n_staged: usize,
    staging: Vec<Aligned>,
    residents: HashMap<Key, Resident>,
    /// Asked for and not taken up.
    asked: VecDeque<(Arc<Streamed>, usize)>,
    /// Being read, and which asking it belongs to.
    reading: Option<(Key, u64)>,
    /// Taken up and not yet used.
    arrived: VecDeque<(Key, Arrival)>,
    /// Counts askings that replaced what was asked for.
    asking: u64,
    n_maps: usize,
    stats: ExpertStats,
    stop: bool,
}

struct Shared {
    state: Mutex<State>,
    /// For the reader: something was asked for, or let go.
    work: Condvar,
    /// For whoever computes: something arrived.
    arrival: Condvar,
    limit_bytes: usize,
}

/// A cache of experts.
pub(crate) struct Experts {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
    /// Held while rows go through a map.
    turn: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Experts {
    /// A cache of at most `limit_bytes`, buffers included, but of one slot of each size at least.
    pub(crate) fn new(limit_bytes: usize) -> Self {
        let mut state = State::default();
        state.stats.is_locked = true;
        let (work, arrival) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { state: Mutex::new(state), work, arrival, limit_bytes });
        let reader = {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("experts".into()).spawn(move || shared.read_ahead()).ok()
        };
        Self { shared, reader, turn: Mutex::new(()) }
    }

    pub(crate) fn stats(&self) -> ExpertStats {
        lock(&self.shared.state).stats
    }

    /// `memory`, locked where the system allows it.
    pub(crate) fn locked(&self, mut memory: Aligned) -> Aligned {
        let is_locked = memory.lock();
        lock(&self.shared.state).stats.is_locked &= is_locked;
        memory
    }

    /// `source` in locked memory.
    ///
    /// # Errors
    /// [`OpError::Read`] if it can not be read, [`OpError::Shape`] if it is too large.
    pub(crate) fn held(&self, source: &WeightSource) -> Result<WeightSource, OpError> {
        let stored = source.stored("table")?;
        let len = stored.len();
        let room = Aligned::zeroed(Bytes::room(len));
        let mut room = room.ok_or_else(|| OpError::shape("table", format!("no {len} bytes of memory can be had")))?;
        let begin = stored.read(0..len, &mut room)?;
        let bytes = Bytes::new(self.locked(room)).slice(begin..begin + len);
        let bytes = bytes.ok_or_else(|| OpError::shape("table", "a file was read to the wrong place"))?;
        WeightSource::new(bytes, source.format(), source.orientation(), source.shape())
    }

    /// Makes the experts of a map known.
    ///
    /// # Errors
    /// [`OpError::Shape`] if they are only described.
    pub(crate) fn register(&self, parts: Vec<(WeightSource, Groups)>) -> Result<Arc<Streamed>, OpError> {
        let n_experts = parts.first().map_or(0, |(source, _)| source.shape()[0]);
        let mut state = lock(&self.shared.state);
        let map = Streamed::new(state.n_maps, parts)?;
        state.n_maps += 1;
        state.is_planned = false;
        state.staging_bytes = state.staging_bytes.max(map.staging_bytes);
        state.classes.entry(map.slot_bytes).or_default().n_units += n_experts;
        Ok(Arc::new(map))
    }

    /// Says that the experts of `maps` that `segments` name will be used, map by map.
    pub(crate) fn expect<'a>(&self, maps: impl Iterator<Item = &'a Arc<Streamed>>, segments: &[Segment]) {
        // While rows go through a map, what it asked for stands first.
        let Ok(_turn) = self.turn.try_lock() else { return };
        let mut state = lock(&self.shared.state);
        self.shared.ask(&mut state, maps.flat_map(|map| segments.iter().map(move |s| (Arc::clone(map), s.matrix))));
    }

    /// Calls `compute` with each segment and its expert, in order.
    ///
    /// # Errors
    /// [`OpError::Read`] if an expert can not be read; those after it are given up.
    pub(crate) fn each(
        &self,
        pool: &Pool,
        map: &Arc<Streamed>,
        segments: &[Segment],
        mut compute: impl FnMut(&Segment, &Matrix),
    ) -> Result<(), OpError> {
        let _turn = lock(&self.turn);
        if self.reader.is_none() {
            let why = "the system gave no thread to read with".into();
            return Err(ReadError { file: "experts".into(), why }.into());
        }
        self.shared.begin(map, segments);
        for segment in segments {
            let expert = self.shared.next(pool, map, segment.matrix)?;
            let parts = map.parts.iter().zip(&expert.begins).map(|(part, begin)| (part.groups, *begin));
            let matrix = Matrix::of_expert(parts, map.n_in, &expert);
            compute(segment, &matrix);
            drop((matrix, expert));
            // Its slot may be what the reader waits for. Under the lock, so that the reader does not miss it.
            let _state = lock(&self.shared.state);
            self.shared.work.notify_one();
        }
        Ok(())
    }
}

impl Drop for Experts {
    fn drop(&mut self) {
        lock(&self.shared.state).stop = true;
        self.shared.work.notify_one();
        if let Some(reader) = self.reader.take() {
            // A panic of the reader's was said on standard error when it happened.
            let _ = reader.join();
        }
    }
}

impl std::fmt::Debug for Experts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Experts({} bytes)", self.shared.limit_bytes)
    }
}

impl Shared {
    /// Replaces all that was asked for.
    fn ask(&self, state: &mut State, units: impl Iterator<Item = (Arc<Streamed>, usize)>) {
        state.plan(self.limit_bytes);
        state.asking += 1;
        state.asked = units.collect();
        for (_, arrival) in std::mem::take(&mut state.arrived) {
            if let Arrival::Stored { staged, slot, .. } = arrival {
                state.give_back(slot);
                state.staging.push(staged);
            }
        }
        state.take_up_hits();
        self.work.notify_one();
    }

    /// Makes sure that what comes next are the experts of `map` that `segments` name.
    fn begin(&self, map: &Arc<Streamed>, segments: &[Segment]) {
        let mut state = lock(&self.state);
        let State { arrived, reading, asked, asking, .. } = &*state;
        let reading = reading.iter().filter(|(_, of)| of == asking).map(|(key, _)| *key);
        let asked = asked.iter().map(|(map, expert)| (map.id, *expert));
        let coming = arrived.iter().map(|(key, _)| *key).chain(reading).chain(asked);
        let wanted = segments.iter().map(|segment| (map.id, segment.matrix));
        if coming.take(segments.len()).ne(wanted) {
            self.ask(&mut state, segments.iter().map(|segment| (Arc::clone(map), segment.matrix)));
        }
    }

    /// The next unit, which is `expert` of `map`: waits for it, and packs it if that is still to be done.
    fn next(&self, pool: &Pool, map: &Arc<Streamed>, expert: usize) -> Result<Arc<Expert>, ReadError> {
        let key = (map.id, expert);
        let mut state = lock(&self.state);
        if state.arrived.is_empty() {
            let began = Instant::now();
            while state.arrived.is_empty() {
                state = self.arrival.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.stats.waiting += began.elapsed();
        }
        match state.arrived.pop_front() {
            Some((_, Arrival::Packed(expert))) => Ok(expert),
            Some((_, Arrival::Failed(error))) => Err(error),
            Some((_, Arrival::Stored { staged, begins, mut slot })) => {
                drop(state);
                let begins = map.pack(pool, (&staged, &begins), &mut slot);
                let expert = Arc::new(Expert { slot, begins });
                let mut state = lock(&self.state);
                state.staging.push(staged);
                state.settle(key, map.slot_bytes, &expert);
                self.work.notify_one();
                Ok(expert)
            }
            None => Err(ReadError { file: "experts".into(), why: "nothing arrived".into() }),
        }
    }

    /// What the reader does until it is told to stop.
    fn read_ahead(&self) {
        let mut state = lock(&self.state);
        while !state.stop {
            let Some((map, expert, slot, staged)) = state.take_up_miss() else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let asking = state.asking;
            let key = (map.id, expert);
            state.reading = Some((key, asking));
            drop(state);
            let began = Instant::now();
            let (mut slot, mut staged) = (slot, staged);
            let begins = map.read(expert, staged.as_mut().unwrap_or(&mut slot));
            let took = began.elapsed();
            state = lock(&self.state);
            state.reading = None;
            state.stats.reading += took;
            state.stats.bytes_read += if begins.is_ok() { map.bytes() as u64 } else { 0 };
            let is_wanted = state.asking == asking;
            let arrival = match (begins, staged) {
                (Ok(begins), None) => {
                    let expert = Arc::new(Expert { slot, begins });
                    state.settle(key, map.slot_bytes, &expert);
                    Some(Arrival::Packed(expert))
                }
                (Ok(begins), Some(staged)) if is_wanted => Some(Arrival::Stored { staged, begins, slot }),
                (failed, staged) => {
                    state.give_back(slot);
                    state.staging.extend(staged);
                    if is_wanted && failed.is_err() {
                        state.asked.clear();
                    }
                    failed.err().map(Arrival::Failed)
                }
            };
            if is_wanted {
                state.arrived.extend(arrival.map(|arrival| (key, arrival)));
            }
            state.take_up_hits();
            self.arrival.notify_one();
        }
    }
}

impl State {
    /// Shares `limit_bytes` out between sizes, so that the same part of each size's units fits.
    fn plan(&mut self, limit_bytes: usize) {
        if self.is_planned {
            return;
        }
        let slots = limit_bytes.saturating_sub(N_STAGED * self.staging_bytes);
        let all: usize = self.classes.iter().map(|(bytes, class)| bytes * class.n_units).sum();
        for class in self.classes.values_mut() {
            let part = slots as u128 * class.n_units as u128 / (all as u128).max(1);
            class.n_most = usize::try_from(part).unwrap_or(class.n_units).clamp(1, class.n_units.max(1));
        }
        let slots: usize = self.classes.iter().map(|(bytes, class)| bytes * class.n_most).sum();
        self.stats.cache_bytes = slots + N_STAGED * self.staging_bytes;
        self.is_planned = true;
    }

    /// Takes up units from the front of what is asked for while they are in memory.
    fn take_up_hits(&mut self) {
        while self.reading.is_none()
            && let Some((map, expert)) = self.asked.front()
            && let Some(resident) = self.residents.get_mut(&(map.id, *expert))
        {
            self.stats.n_asked += 1;
            self.stats.n_hits += 1;
            let half_life = half_life(&self.classes);
            resident.rank = used(resident.rank, self.stats.n_asked, half_life);
            self.arrived.push_back(((map.id, *expert), Arrival::Packed(Arc::clone(&resident.expert))));
            self.asked.pop_front();
        }
    }

    /// Takes up the first unit asked for, with a slot and, where it needs one, a buffer; `None` while there is no unit or
    /// no room.
    fn take_up_miss(&mut self) -> Option<(Arc<Streamed>, usize, Aligned, Option<Aligned>)> {
        self.take_up_hits();
        let (map, expert) = self.asked.front().map(|(map, expert)| (Arc::clone(map), *expert))?;
        let staged = if map.is_packed {
            None
        } else {
            // A buffer is as large as the largest unit needs.
            let staged = self.staging.pop();
            Some(staged.or_else(|| (self.n_staged < N_STAGED).then(|| self.new_staging()).flatten())?)
        };
        let Some(slot) = self.slot(map.slot_bytes) else {
            self.staging.extend(staged);
            return None;
        };
        self.asked.pop_front();
        self.stats.n_asked += 1;
        Some((map, expert, slot, staged))
    }

    fn new_staging(&mut self) -> Option<Aligned> {
        self.n_staged += 1;
        Aligned::zeroed(self.staging_bytes)
    }

    /// A free slot, a new one, or that of a unit that nobody holds: of those that are not asked for the least used, else
    /// the one that is needed last.
    fn slot(&mut self, slot_bytes: usize) -> Option<Aligned> {
        let class = self.classes.get_mut(&slot_bytes)?;
        if let Some(slot) = class.free.pop() {
            return Some(slot);
        }
        if class.n_made < class.n_most {
            class.n_made += 1;
            let mut slot = Aligned::zeroed(slot_bytes)?;
            self.stats.is_locked &= slot.lock();
            return Some(slot);
        }
        let turns: HashMap<Key, usize> =
            self.asked.iter().enumerate().map(|(turn, (map, expert))| ((map.id, *expert), turn)).collect();
        let held = |resident: &Resident| Arc::strong_count(&resident.expert) > 1;
        let candidates = self.residents.iter().filter(|(_, r)| r.slot_bytes == slot_bytes && !held(r));
        let least = candidates.min_by(|(a, x), (b, y)| match (turns.get(a), turns.get(b)) {
            (None, None) => x.rank.total_cmp(&y.rank).then(a.cmp(b)),
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(a), Some(b)) => b.cmp(a),
        });
        let key = *least?.0;
        let resident = self.residents.remove(&key)?;
        // Nobody else holds it, and nobody can take it up while the state is locked.
        Arc::into_inner(resident.expert).map(|expert| expert.slot)
    }

    /// A unit is in memory now.
    fn settle(&mut self, key: Key, slot_bytes: usize, expert: &Arc<Expert>) {
        let rank = used(f64::NEG_INFINITY, self.stats.n_asked, half_life(&self.classes));
        let resident = Resident { expert: Arc::clone(expert), slot_bytes, rank };
        if let Some(before) = self.residents.insert(key, resident)
            && let Some(expert) = Arc::into_inner(before.expert)
        {
            self.give_back(expert.slot);
        }
    }

    fn give_back(&mut self, slot: Aligned) {
        if let Some(class) = self.classes.get_mut(&slot.len()) {
            class.free.push(slot);
        }
    }
}

/// Uses until a past one counts half.
fn half_life(classes: &BTreeMap<usize, Class>) -> f64 {
    HALF_LIFE * classes.values().map(|class| class.n_most).sum::<usize>().max(1) as f64
}

/// The rank after a use at `time`.
fn used(rank: f64, time: u64, half_life: f64) -> f64 {
    let now = time as f64 / half_life;
    ((rank - now).exp2() + 1.0).log2() + now
}
