//! The events of one job on their way out, without ever waiting for who receives them.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::handle::Place;
use super::{Event, Failure, Submitted};

/// The sending end of a job's events. A place in the channel is kept for the last one, so that there is exactly one
/// whatever happens: an outlet that is dropped before says that it was our mistake.
#[derive(Debug)]
pub(super) struct Outlet {
    events: mpsc::Sender<Event>,
    last: Option<mpsc::OwnedPermit<Event>>,
    /// Events that found the channel full, and the last one after them.
    backlog: VecDeque<Event>,
    ending: Option<Event>,
    /// When the receiver last took something while there was a backlog.
    since: Duration,
    /// After the last event, so that a job's place is free only then.
    _place: Place,
}

impl Outlet {
    /// The outlet of a submitted job, whose channel is still empty.
    pub(super) fn new(submitted: Submitted) -> (super::Job, Self) {
        let Submitted { job, events, place, .. } = submitted;
        let last = events.clone().try_reserve_owned().ok();
        let backlog = VecDeque::new();
        (job, Self { events, last, backlog, ending: None, since: Duration::ZERO, _place: place })
    }

    /// Sends `event`, now or when there is room.
    pub(super) fn send(&mut self, event: Event, now: Duration) {
        if !self.backlog.is_empty() {
            self.backlog.push_back(event);
            return;
        }
        if let Err(TrySendError::Full(event)) = self.events.try_send(event) {
            self.since = now;
            self.backlog.push_back(event);
        }
    }

    /// Sends what found no room before. Whether something was taken since the last time.
    pub(super) fn flush(&mut self, now: Duration) -> bool {
        let n_before = self.backlog.len();
        while let Some(event) = self.backlog.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.backlog.push_front(event);
                    break;
                }
                Err(TrySendError::Closed(_)) => self.backlog.clear(),
            }
        }
        if self.backlog.is_empty()
            && let Some(event) = self.ending.take()
        {
            self.end(event);
        }
        let has_moved = self.backlog.len() < n_before;
        if has_moved {
            self.since = now;
        }
        has_moved
    }

    /// Sends `event` as the last one, after those that wait for room.
    pub(super) fn finish(&mut self, event: Event) {
        if self.backlog.is_empty() {
            self.end(event);
        } else {
            self.ending = Some(event);
        }
    }

    /// Sends `failure` as the last event, leaving out those that wait for room.
    pub(super) fn fail(&mut self, failure: Failure) {
        self.backlog.clear();
        self.ending = None;
        self.end(Event::Failed(failure));
    }

    /// Whether events wait for room.
    pub(super) fn is_full(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Since when nothing was taken although there is more.
    pub(super) fn since(&self) -> Duration {
        self.since
    }

    /// Whether the last event is sent.
    pub(super) fn is_over(&self) -> bool {
        self.last.is_none()
    }

    /// Whether nobody receives any more.
    pub(super) fn is_left(&self) -> bool {
        self.events.is_closed()
    }

    fn end(&mut self, event: Event) {
        if let Some(last) = self.last.take() {
            last.send(event);
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.end(Event::Failed(Failure::Internal));
    }
}
