//! Similar: which questions have been answered whose text is like this one. For each context (all of a request but its
//! last text) the directions of the texts that have been answered, with the keys of their questions.
//!
//! Bounded in number and in bytes, over all contexts; the oldest goes first. Sees vectors and keys; not the answers
//! (whoever finds a key looks for its answer), not what makes the vectors. Keeps no text.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cache::key::Key;
use crate::cache::memory::Occupancy;
use crate::cache::wording::Wording;
use crate::units::{ByteSize, Share, Span};

/// What the operator writes of answers to similar requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where texts become vectors: the base URL of anything that offers OpenAI's embeddings, such as
    /// `http://127.0.0.1:11434/v1` (Ollama, vLLM, TEI, OpenAI). The text of each request that is compared goes there.
    /// Without this, nothing is compared: only equal requests share an answer.
    pub url: Option<String>,
    /// The model that makes the vectors, as the endpoint calls it. Needed with `url`.
    pub model: Option<String>,
    /// A file that holds the endpoint's API key. Re-read when it changes.
    pub api_key_file: Option<PathBuf>,
    /// An environment variable that holds the endpoint's API key.
    pub api_key_env: Option<String>,
    /// How near two texts have to be, as the cosine of the angle between their vectors: from 0 to 1. What is safe
    /// depends on the model: raise it when `weir_cache_similar_verified_total` counts answers that differ.
    pub threshold: Share,
    /// How long a call waits for the vector of its text. A call that has waited in vain goes to its provider.
    pub timeout: Span,
    /// Most texts remembered.
    pub max_entries: usize,
    /// Most memory held by their vectors. One of 1,536 numbers takes 6 KiB.
    pub max_bytes: ByteSize,
    /// The longest text compared. The longer a text, the less a word that matters moves its vector.
    pub max_text_bytes: ByteSize,
    /// The share of answers to similar requests that are checked, from 0 to 1: the request is made all the same, after
    /// the app has its answer, and the two answers are compared. Each check costs what the call costs.
    pub verify: Share,
    /// How near the two answers of a check have to be to count as the same.
    pub verify_threshold: Share,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: None,
            model: None,
            api_key_file: None,
            api_key_env: None,
            threshold: Share::percent(95),
            timeout: Span::from_millis(100),
            max_entries: 10_000,
            max_bytes: ByteSize::mib(64),
            max_text_bytes: ByteSize::kib(1),
            verify: Share::percent(0),
            verify_threshold: Share::percent(90),
        }
    }
}

/// Where a vector points: what the text means, as far as the model that made it can tell.
#[derive(Clone, PartialEq)]
pub struct Direction(Arc<[f32]>);

impl Direction {
    /// The direction of a vector; `None` if it has none: no numbers, nothing but zeros, or a number that is none.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a share of a vector's length, to the precision it came in")]
    pub fn of(vector: &[f32]) -> Option<Self> {
        let length = vector.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
        let scaled = || vector.iter().map(|number| (f64::from(*number) / length) as f32).collect();
        length.is_normal().then(|| Self(scaled()))
    }

    /// The cosine of the angle between two directions; `None` if they are not of one space.
    #[must_use]
    pub fn cosine(&self, other: &Self) -> Option<f32> {
        (self.0.len() == other.0.len()).then(|| dot(&self.0, &other.0))
    }

    fn bytes(&self) -> u64 {
        size_of_val::<[f32]>(&self.0) as u64
    }
}

/// Shows how many numbers there are, not which: a text can be guessed from its vector.
impl fmt::Debug for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Direction of {} dimensions", self.0.len())
    }
}

/// Whether a cosine reaches `threshold`, to the precision of vectors.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "that is the precision of what it is compared with")]
pub fn is_near(cosine: f32, threshold: Share) -> bool {
    cosine >= threshold.get() as f32
}

/// The dot product. Sixteen sums that do not wait for one another, which the compiler keeps in vector registers.
fn dot(one: &[f32], other: &[f32]) -> f32 {
    const LANES: usize = 16;
    let (ones, one_rest) = one.as_chunks::<LANES>();
    let (others, other_rest) = other.as_chunks::<LANES>();
    let mut sums = [0.0_f32; LANES];
    for (one, other) in ones.iter().zip(others) {
        for lane in 0..LANES {
            sums[lane] += one[lane] * other[lane];
        }
    }
    let rest: f32 = one_rest.iter().zip(other_rest).map(|(one, other)| one * other).sum();
    sums.iter().sum::<f32>() + rest
}

/// What of a request is compared.
#[derive(Clone)]
pub struct Sought {
    /// All of the request but the text: only what is asked in the same context is compared.
    pub context: Key,
    /// How the text is worded.
    pub wording: Wording,
    /// The text, to be made a vector of.
    pub text: Box<str>,
    /// Where it points, once that is known.
    pub direction: Option<Direction>,
}

/// Shows which, not what: prompts stay out of logs.
impl fmt::Debug for Sought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sought").field("context", &self.context).finish_non_exhaustive()
    }
}

/// Texts that have been answered.
#[derive(Debug)]
pub struct Similar {
    max_entries: usize,
    max_bytes: u64,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Never an empty list.
    contexts: HashMap<Key, Arc<Vec<Arc<Answered>>>>,
    /// The context of each text, the oldest first.
    ages: BTreeMap<u64, Key>,
    /// The next text's place in `ages`.
    next: u64,
    bytes: u64,
}

/// A text that has been answered.
#[derive(Debug)]
struct Answered {
    age: u64,
    wording: Wording,
    direction: Direction,
    question: Key,
}

/// What a text takes beside its vector, roughly: its place in two maps and a list, and its context's.
const OVERHEAD_BYTES: u64 = 512;

impl Answered {
    fn size(&self) -> u64 {
        self.direction.bytes() + OVERHEAD_BYTES
    }
}

/// The texts of one context at one moment, to be searched in peace.
#[derive(Clone, Debug)]
pub struct Candidates {
    texts: Arc<Vec<Arc<Answered>>>,
    wording: Wording,
}

/// A text that is near enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Near {
    /// The question it is part of, under which its answer is stored.
    pub question: Key,
    /// How near.
    pub cosine: f32,
}

impl Similar {
    /// Room for as much as `settings` say.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let max_bytes = settings.max_bytes.bytes();
        Self { max_entries: settings.max_entries, max_bytes, known: Mutex::default() }
    }

    /// What `sought` may be compared with; `None` if there is nothing, so that its vector need not be made.
    #[must_use]
    pub fn candidates(&self, sought: &Sought) -> Option<Candidates> {
        let texts = Arc::clone(self.lock().contexts.get(&sought.context)?);
        let wording = sought.wording;
        texts.iter().any(|text| text.wording.agrees_with(&wording)).then_some(Candidates { texts, wording })
    }

    /// Remembers that the text of `sought`, which points in this direction, is part of this question, which has been
    /// answered.
    pub fn insert(&self, sought: &Sought, direction: Direction, question: Key) {
        let mut known = self.lock();
        known.remove_question(&sought.context, &question);
        let text = Answered { age: known.next, wording: sought.wording, direction, question };
        if text.size() > self.max_bytes {
            return;
        }
        let age = text.age;
        known.next += 1;
        known.bytes += text.size();
        known.ages.insert(age, sought.context);
        Arc::make_mut(known.contexts.entry(sought.context).or_default()).push(Arc::new(text));
        while known.ages.len() > self.max_entries || known.bytes > self.max_bytes {
            known.remove_oldest();
        }
    }

    /// Forgets the text of a question whose answer is gone.
    pub fn remove(&self, context: &Key, question: &Key) {
        self.lock().remove_question(context, question);
    }

    /// How full it is.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        let known = self.lock();
        Occupancy { entries: known.ages.len() as u64, bytes: known.bytes, capacity_bytes: self.max_bytes }
    }

    /// Held for as long as it takes to move pointers; never while vectors are compared.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn remove_oldest(&mut self) {
        if let Some((age, context)) = self.ages.first_key_value() {
            let (age, context) = (*age, *context);
            self.remove_where(&context, |text| text.age == age);
        }
    }

    fn remove_question(&mut self, context: &Key, question: &Key) {
        self.remove_where(context, |text| text.question == *question);
    }

    fn remove_where(&mut self, context: &Key, is_meant: impl Fn(&Answered) -> bool) {
        let Some(texts) = self.contexts.get_mut(context) else { return };
        let Some(position) = texts.iter().position(|text| is_meant(text)) else { return };
        // Whoever searches the list right now goes on with it as it was.
        let text = Arc::make_mut(texts).remove(position);
        if texts.is_empty() {
            self.contexts.remove(context);
        }
        self.ages.remove(&text.age);
        self.bytes -= text.size();
    }
}

impl Candidates {
    /// Those that are at least as near to `direction` as `threshold` says, the nearest first. Takes milliseconds where
    /// there are ten thousand: not for a thread that serves calls.
    #[must_use]
    pub fn near(&self, direction: &Direction, threshold: Share) -> Vec<Near> {
        let agreeing = self.texts.iter().filter(|text| text.wording.agrees_with(&self.wording));
        let mut near: Vec<Near> = agreeing
            .filter_map(|text| Some(Near { question: text.question, cosine: text.direction.cosine(direction)? }))
            .filter(|near| is_near(near.cosine, threshold))
            .collect();
        near.sort_by(|one, other| other.cosine.total_cmp(&one.cosine));
        near
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::key;

    fn sought(context: u64, text: &str) -> Sought {
        Sought { context: key(context), wording: Wording::of(text), text: text.into(), direction: None }
    }

    fn direction(vector: &[f32]) -> Direction {
        Direction::of(vector).expect("a direction")
    }

    fn found(similar: &Similar, sought: &Sought, vector: &[f32], threshold: u8) -> Vec<Key> {
        let Some(candidates) = similar.candidates(sought) else { return Vec::new() };
        let near = candidates.near(&direction(vector), Share::percent(threshold));
        near.into_iter().map(|near| near.question).collect()
    }

    fn similar(max_entries: usize, max_bytes: u64) -> Similar {
        Similar::new(&Settings { max_entries, max_bytes: ByteSize::mib(max_bytes), ..Settings::default() })
    }

    #[test]
    fn a_vector_without_a_direction_is_refused() {
        for vector in
            [&[][..], &[0.0, 0.0], &[f32::NAN, 1.0], &[f32::INFINITY, 1.0], &[f32::NEG_INFINITY, f32::INFINITY]]
        {
            assert!(Direction::of(vector).is_none(), "{vector:?}");
        }
        for vector in [&[1e-30, 0.0][..], &[f32::MAX, f32::MAX], &[-3.0, 4.0]] {
            let direction = direction(vector);
            let itself = direction.cosine(&direction).expect("one space");
            assert!((itself - 1.0).abs() < 1e-6, "{vector:?}: {itself}");
        }
    }

    #[test]
    fn the_product_is_that_of_every_number_whatever_their_count() {
        for count in [1_u8, 15, 16, 17, 31, 32, 33, 255] {
            let ones: Vec<f32> = (0..count).map(f32::from).collect();
            let twos = vec![2.0; usize::from(count)];
            let expected = f32::from(count) * f32::from(count - 1);
            assert!((dot(&ones, &twos) - expected).abs() < f32::EPSILON, "{count}");
        }
    }

    #[test]
    fn the_threshold_is_met_exactly_or_not_at_all() {
        let similar = similar(10, 1);
        similar.insert(&sought(0, "a"), direction(&[3.0, 4.0]), key(1));
        let candidates = similar.candidates(&sought(0, "b")).expect("one");
        let cosine = candidates.near(&direction(&[1.0, 0.0]), Share::percent(0))[0].cosine;
        assert_eq!(cosine.to_bits(), 0.6_f32.to_bits(), "the cosine of 3-4-5");
        assert_eq!(candidates.near(&direction(&[1.0, 0.0]), Share::percent(60)).len(), 1);
        assert_eq!(candidates.near(&direction(&[1.0, 0.0]), Share::percent(61)), []);
    }

    #[test]
    fn the_nearest_comes_first_and_opposites_never() {
        let similar = similar(10, 1);
        for (answer, vector) in [(1, [1.0, 0.2]), (2, [1.0, 0.1]), (3, [-1.0, 0.0]), (4, [0.0, 1.0])] {
            similar.insert(&sought(0, "a"), direction(&vector), key(answer));
        }
        assert_eq!(found(&similar, &sought(0, "b"), &[1.0, 0.0], 90), [key(2), key(1)]);
        assert_eq!(found(&similar, &sought(0, "b"), &[1.0, 0.0], 0), [key(2), key(1), key(4)]);
    }

    #[test]
    fn only_what_was_asked_in_the_same_context_in_the_same_space_and_worded_alike_is_near() {
        let similar = similar(10, 1);
        similar.insert(&sought(0, "how are you"), direction(&[1.0, 0.0]), key(1));
        for (rule, sought, vector, expected) in [
            ("the same", sought(0, "how you are"), &[1.0, 0.0][..], 0),
            ("another text", sought(0, "how is it"), &[1.0, 0.0], 1),
            ("another context", sought(1, "how is it"), &[1.0, 0.0], 0),
            ("another space", sought(0, "how is it"), &[1.0, 0.0, 0.0], 0),
            ("other numbers", sought(0, "how is it, 2"), &[1.0, 0.0], 0),
        ] {
            assert_eq!(found(&similar, &sought, vector, 90).len(), expected, "{rule}");
        }
        assert!(similar.candidates(&sought(0, "how is it, 2")).is_none(), "its vector is not needed");
    }

    #[test]
    fn neither_bound_is_ever_passed_and_the_oldest_goes_first() {
        for (dimensions, max_entries, expected) in [(4, 5, 5), (1536, 1000, 157)] {
            let similar = similar(max_entries, 1);
            let vector = vec![1.0; dimensions];
            for number in 0..1000 {
                similar.insert(&sought(number % 3, "a"), direction(&vector), key(number));
                let now = similar.occupancy();
                assert!(now.entries <= max_entries as u64 && now.bytes <= 1 << 20, "{now:?}");
            }
            assert_eq!(similar.occupancy().entries, expected);
            let mut left: Vec<Key> =
                (0..3).flat_map(|context| found(&similar, &sought(context, "b"), &vector, 90)).collect();
            assert_eq!(left.len() as u64, expected);
            left.retain(|answer| (1000 - expected..1000).any(|number| key(number) == *answer));
            assert_eq!(left.len() as u64, expected, "the youngest are left");
        }
    }

    #[test]
    fn a_vector_that_is_larger_than_all_that_is_held_does_not_push_it_out() {
        let similar = similar(10, 1);
        similar.insert(&sought(0, "a"), direction(&[1.0, 0.0]), key(1));
        similar.insert(&sought(0, "b"), direction(&vec![1.0; 1 << 18]), key(2));
        assert_eq!(found(&similar, &sought(0, "c"), &[1.0, 0.0], 90), [key(1)]);
        assert_eq!(similar.occupancy().entries, 1);
    }

    #[test]
    fn what_is_answered_again_or_gone_takes_no_place() {
        let similar = similar(10, 1);
        let same = sought(0, "a");
        for vector in [[1.0, 0.0], [0.0, 1.0]] {
            similar.insert(&same, direction(&vector), key(1));
        }
        assert_eq!(similar.occupancy().entries, 1);
        assert_eq!(found(&similar, &sought(0, "b"), &[0.0, 1.0], 90), [key(1)]);
        similar.remove(&key(0), &key(2));
        assert_eq!(similar.occupancy().entries, 1, "another answer");
        similar.remove(&key(0), &key(1));
        assert_eq!((similar.occupancy().entries, similar.occupancy().bytes), (0, 0));
        assert!(similar.candidates(&sought(0, "b")).is_none());
    }

    #[test]
    fn a_search_under_way_sees_the_list_as_it_was() {
        let similar = similar(1, 1);
        similar.insert(&sought(0, "a"), direction(&[1.0, 0.0]), key(1));
        let before = similar.candidates(&sought(0, "b")).expect("one");
        similar.insert(&sought(0, "c"), direction(&[1.0, 0.0]), key(2));
        let near = before.near(&direction(&[1.0, 0.0]), Share::percent(90));
        assert_eq!(near.iter().map(|near| near.question).collect::<Vec<_>>(), [key(1)]);
    }

    #[test]
    fn nothing_of_a_text_or_its_vector_is_shown() {
        assert_eq!(format!("{:?}", direction(&[1.0, 0.0])), "Direction of 2 dimensions");
        assert!(!format!("{:?}", sought(0, "secret")).contains("secret"));
    }
}
