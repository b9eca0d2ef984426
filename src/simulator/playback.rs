//! Playback: sends a reply out, at its pace and with the faults it was told to have.
//!
//! Knows bytes, time and faults; no wire format.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body::{Body, Frame};
use thiserror::Error;
use tokio::time::{Sleep, sleep};

use super::bill::Call;
use super::faults::{Oddity, Place, Script};
use super::pace::Timing;
use super::reply::{Content, Event, Framing, Part};

/// The simulator ends a connection early, as it was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("broken off as the script wanted")]
pub(super) struct BrokenOff;

/// A body that sends itself. Dropped before its end, it counts its call as hung up.
#[derive(Debug)]
pub(super) struct Playback {
    steps: VecDeque<Step>,
    length: usize,
    end: End,
    trickle: bool,
    /// Whether to let what was sent reach the wire before more is sent.
    pausing: bool,
    resting: Option<Pin<Box<Sleep>>>,
    call: Option<Call>,
}

/// Bytes that are sent at once.
#[derive(Clone, Debug)]
struct Step {
    bytes: Bytes,
    /// How much of the answer this is.
    weight: u64,
    /// How long to wait before.
    wait: Duration,
}

/// What comes after the last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Complete,
    /// The body ends properly, but what it says is that the call has failed.
    Failed,
    Cut,
    Stall,
}

impl Playback {
    /// A body of the simulator's own, without a call.
    pub(super) fn page(bytes: Bytes) -> Self {
        let length = bytes.len();
        let steps = VecDeque::from([Step { bytes, weight: 1, wait: Duration::ZERO }]);
        Self { steps, length, end: End::Complete, trickle: false, pausing: false, resting: None, call: None }
    }

    /// A reply that answers `call`. What the script says is done to it; `timing` says when its tokens are there.
    pub(super) fn reply(content: Content, script: &Script, timing: Timing, mut call: Call) -> Self {
        call.weighs(content.weight());
        let (mut steps, mut end) = match content {
            Content::Whole(bytes) | Content::Sound(bytes) | Content::Text(bytes) => {
                (vec![whole(bytes, script)], End::Complete)
            }
            Content::Stream { mut events, failure, framing } => {
                let end = if script.stream_error.is_some() { End::Failed } else { End::Complete };
                spoil(&mut events, failure, framing, script);
                (stream(events, script, timing), end)
            }
        };
        if script.has(Oddity::Gzip) {
            steps = compressed(steps).expect("writing to memory does not fail");
        }
        let length = steps.iter().map(|step| step.bytes.len()).sum();
        for (place, fault) in [(script.cut, End::Cut), (script.stall, End::Stall)] {
            if let Some(place) = place {
                shorten(&mut steps, place);
                end = fault;
            }
        }
        let trickle = script.has(Oddity::Trickle);
        Self { steps: steps.into(), length, end, trickle, pausing: end == End::Cut, resting: None, call: Some(call) }
    }

    /// How many bytes there would be to send if it were not cut short.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    fn take(&mut self) -> Option<Bytes> {
        let step = self.steps.front_mut()?;
        if self.trickle && step.bytes.len() > 1 {
            self.pausing = true;
            return Some(step.bytes.split_to(1));
        }
        self.pausing = self.trickle;
        let step = self.steps.pop_front()?;
        if let Some(call) = &mut self.call {
            call.served(step.weight);
        }
        Some(step.bytes)
    }

    /// Closes the books as soon as nothing is left to send: hyper may not ask again.
    fn close(&mut self) {
        match self.end {
            End::Complete => self.call.iter_mut().for_each(Call::finish),
            End::Failed | End::Cut => self.call.iter_mut().for_each(Call::break_off),
            End::Stall => return,
        }
        self.call = None;
    }
}

impl Body for Playback {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if std::mem::take(&mut self.pausing) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(step) = self.steps.front_mut().filter(|step| !step.wait.is_zero()) {
            let wait = std::mem::take(&mut step.wait);
            self.resting = Some(Box::pin(sleep(wait)));
        }
        if let Some(resting) = &mut self.resting {
            ready!(resting.as_mut().poll(cx));
            self.resting = None;
        }
        let bytes = self.take();
        if bytes.is_some() && self.steps.is_empty() && self.end == End::Cut {
            self.pausing = true; // an error makes hyper drop what it has not sent yet
        }
        if self.steps.is_empty() {
            self.close();
        }
        match (bytes, self.end) {
            (Some(bytes), _) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            (None, End::Complete | End::Failed) => Poll::Ready(None),
            (None, End::Cut) => Poll::Ready(Some(Err(BrokenOff))),
            // Nothing will ever wake it: only the end of the connection ends it.
            (None, End::Stall) => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && matches!(self.end, End::Complete | End::Failed)
    }
}

impl Content {
    fn weight(&self) -> u64 {
        match self {
            Self::Whole(_) | Self::Sound(_) | Self::Text(_) => 1,
            Self::Stream { events, .. } => events.iter().map(Event::weight).sum(),
        }
    }
}

impl Event {
    fn weight(&self) -> u64 {
        u64::from(self.part == Part::Token)
    }
}

fn whole(bytes: Bytes, script: &Script) -> Step {
    let bytes = if script.has(Oddity::BadJson) { bytes.slice(..bytes.len() / 2) } else { bytes };
    Step { bytes, weight: 1, wait: Duration::ZERO }
}

/// Does to the events what the script wants done.
fn spoil(events: &mut Vec<Event>, failure: fn(usize) -> Bytes, framing: Framing, script: &Script) {
    if script.has(Oddity::NoDone) {
        events.retain(|event| event.part != Part::End);
    }
    if script.has(Oddity::BadJson) {
        let middle = events.len() / 2;
        events[middle].bytes = framing.bad_json();
    }
    if let Some(place) = script.stream_error {
        let before = match place {
            Place::Chunks(count) => count.min(events.len()),
            Place::Half | Place::Bytes(_) => events.len() / 2,
        };
        events.truncate(before);
        events.push(Event { part: Part::Frame, bytes: failure(before) });
    }
}

fn stream(events: Vec<Event>, script: &Script, timing: Timing) -> Vec<Step> {
    let wait = |index: usize, event: &Event| match (index, script.chunk_delay) {
        (0, _) => timing.first,
        (_, Some(delay)) => delay,
        _ if event.part == Part::Token => timing.per_token,
        _ => Duration::ZERO,
    };
    let step =
        |(index, event): (usize, Event)| Step { wait: wait(index, &event), weight: event.weight(), bytes: event.bytes };
    events.into_iter().enumerate().map(step).collect()
}

/// The same steps compressed, each so that it can be read without those after it.
fn compressed(steps: Vec<Step>) -> io::Result<Vec<Step>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let last = steps.len().saturating_sub(1);
    let mut compressed = Vec::with_capacity(steps.len());
    for (index, step) in steps.into_iter().enumerate() {
        encoder.write_all(&step.bytes)?;
        if index == last {
            encoder.try_finish()?;
        } else {
            encoder.flush()?;
        }
        let bytes = std::mem::take(encoder.get_mut()).into();
        compressed.push(Step { bytes, ..step });
    }
    Ok(compressed)
}

/// Keeps only what is before the place.
fn shorten(steps: &mut Vec<Step>, place: Place) {
    let all: usize = steps.iter().map(|step| step.bytes.len()).sum();
    let mut left = match place {
        Place::Chunks(count) => return steps.truncate(count),
        Place::Bytes(count) => count,
        Place::Half => all / 2,
    };
    for step in &mut *steps {
        if left < step.bytes.len() {
            step.bytes.truncate(left);
            step.weight = 0;
        }
        left -= step.bytes.len();
    }
    steps.retain(|step| !step.bytes.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(texts: &[&'static str]) -> Vec<Step> {
        texts
            .iter()
            .map(|text| Step { bytes: Bytes::from_static(text.as_bytes()), weight: 1, wait: Duration::ZERO })
            .collect()
    }

    fn shortened(place: Place) -> (String, u64) {
        let mut steps = steps(&["one", "two", "three"]);
        shorten(&mut steps, place);
        let text = steps.iter().map(|step| String::from_utf8_lossy(&step.bytes).into_owned()).collect();
        (text, steps.iter().map(|step| step.weight).sum())
    }

    #[test]
    fn a_body_is_cut_where_it_is_told_to_be() {
        assert_eq!(shortened(Place::Chunks(2)), ("onetwo".to_owned(), 2));
        assert_eq!(shortened(Place::Chunks(9)), ("onetwothree".to_owned(), 3));
        assert_eq!(shortened(Place::Bytes(0)), (String::new(), 0));
        assert_eq!(shortened(Place::Bytes(4)), ("onet".to_owned(), 1));
        assert_eq!(shortened(Place::Bytes(6)), ("onetwo".to_owned(), 2));
        assert_eq!(shortened(Place::Half), ("onetw".to_owned(), 1));
        assert_eq!(shortened(Place::Bytes(99)), ("onetwothree".to_owned(), 3));
    }

    #[test]
    fn every_compressed_step_can_be_read_at_once() {
        let compressed = compressed(steps(&["one", "two", "three"])).expect("memory");
        let mut decoder = flate2::write::GzDecoder::new(Vec::new());
        for (step, so_far) in compressed.iter().zip(["one", "onetwo", "onetwothree"]) {
            decoder.write_all(&step.bytes).expect("memory");
            decoder.flush().expect("memory");
            assert_eq!(decoder.get_ref(), so_far.as_bytes());
        }
    }
}
