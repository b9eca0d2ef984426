//! Mind: what is asked, whatever the API, and what is answered.
//!
//! The same question is always answered with the same words, streamed or not. Knows no wire format: the files named
//! after APIs turn requests into a [`Question`] and an [`Answer`] into replies.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::bill::Tally;
use super::dice::Dice;
use super::memory::{Memory, Piece, Recalled, Stay};
use super::reply::Problem;
use super::schema;
use super::text::{self, digest, join};
use super::tokens::Tokens;

/// Tokens that frame each message of a prompt, by OpenAI's cookbook ("How to count tokens with tiktoken").
const AROUND_A_MESSAGE: u64 = 3;
/// Tokens that frame a tool call; a guess that lies between what the vendors report.
const AROUND_A_TOOL_CALL: u64 = 8;
/// Tokens of anything that is not text: an image of 1024 × 1024 pixels, by OpenAI's rule for gpt-4o.
const PER_IMAGE: u64 = 765;
/// What the answer that is always the same is charged: its text as `o200k_base` counts it, and a prompt made up.
const CANNED: Tally = Tally { input: 100, output: 235, ..Tally::NOTHING };
/// The most tools called in one answer.
const MOST_CALLS: usize = 4;
/// The most answers to one question (`n`).
const MOST_CHOICES: u64 = 16;

/// What a call asks.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) model: String,
    pub(super) stream: bool,
    /// The prompt, in the order in which it is cached.
    pub(super) pieces: Vec<Piece>,
    /// The user's last words, if it was the user who spoke last.
    pub(super) asked: Option<String>,
    pub(super) most_tokens: Option<u64>,
    pub(super) form: Form,
    pub(super) tools: Vec<Tool>,
    pub(super) choice: ToolChoice,
    /// How many sentences to think before the answer.
    pub(super) thoughts: u64,
    /// How many answers are wanted.
    pub(super) choices: u64,
}

/// What the answer's text must be.
#[derive(Clone, Debug)]
pub(super) enum Form {
    Prose,
    AnyObject,
    Matching(Value),
}

/// A tool on offer.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    pub(super) name: String,
    /// Of its arguments.
    pub(super) schema: Value,
}

/// Whether tools are to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ToolChoice {
    /// If the user asks for it.
    Auto,
    Never,
    Always,
    Only(String),
}

/// What is answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Stands for the question; ids are made from it.
    pub(super) seed: u64,
    pub(super) choices: Vec<Choice>,
    pub(super) tokens: Tally,
}

/// One answer of those that were wanted.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) thought: String,
    /// Empty if tools are called.
    pub(super) text: String,
    pub(super) calls: Vec<ToolCall>,
    /// The answer was longer than it was allowed to be.
    pub(super) cut: bool,
}

/// One call of a tool.
#[derive(Clone, Debug)]
pub(super) struct ToolCall {
    /// Without the prefix that each API gives it.
    pub(super) id: String,
    pub(super) name: String,
    pub(super) arguments: Value,
}

/// How an API's prompt cache behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caching {
    Unasked,
    Marked,
}

/// All that the simulated models know. A clone shares it.
#[derive(Clone, Debug)]
pub(super) struct Mind {
    pub(super) tokens: Tokens,
    memory: Memory,
    /// When the simulator was made, in Unix seconds: the time every reply claims to be from, so that equal calls get
    /// equal bytes.
    pub(super) created: u64,
}

impl Mind {
    pub(super) fn new() -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { tokens: Tokens::new(), memory: Memory::default(), created }
    }

    /// A part of a prompt: all the text that is somewhere in `content`.
    pub(super) fn piece(&self, role: &str, content: &Value, keep: Option<Stay>) -> Piece {
        let mut gathered = Gathered::default();
        gathered.add(content);
        let tokens = self.tokens.count(&gathered.text) + gathered.others * PER_IMAGE + AROUND_A_MESSAGE;
        let digest = join(digest(role.as_bytes()), digest(gathered.text.as_bytes()));
        Piece { digest: join(digest, gathered.others), tokens, keep }
    }

    /// A tool on offer, as a part of the prompt.
    pub(super) fn tool_piece(&self, tool: &Value, keep: Option<Stay>) -> Piece {
        let text = tool.to_string();
        Piece { digest: digest(text.as_bytes()), tokens: self.tokens.count(&text), keep }
    }

    pub(super) fn answer(&self, question: &Question, caching: Caching) -> Answer {
        let model = digest(question.model.as_bytes());
        let mut seed = question.pieces.iter().fold(model, |seed, piece| join(seed, piece.digest));
        for part in [question.thoughts, question.most_tokens.unwrap_or(u64::MAX)] {
            seed = join(seed, part);
        }
        let (mut tokens, mut choices) = (self.prompt(question, model, caching), Vec::new());
        for number in 0..question.choices.clamp(1, MOST_CHOICES) {
            let (choice, output, reasoning) = self.choice(question, &mut Dice::new(join(seed, number)));
            tokens.output += output;
            tokens.reasoning += reasoning;
            choices.push(choice);
        }
        Answer { seed, choices, tokens }
    }

    fn prompt(&self, question: &Question, model: u64, caching: Caching) -> Tally {
        let now = tokio::time::Instant::now();
        let recalled = match caching {
            Caching::Unasked => self.memory.unasked(model, &question.pieces, now),
            Caching::Marked => self.memory.marked(model, &question.pieces, now),
        };
        let Recalled { read, written_short, written_long } = recalled;
        Tally {
            input: question.pieces.iter().map(|piece| piece.tokens).sum(),
            cached: read,
            cache_write_short: written_short,
            cache_write_long: written_long,
            ..Tally::default()
        }
    }

    /// One answer, the tokens of all of it, and those of the thought alone.
    fn choice(&self, question: &Question, dice: &mut Dice) -> (Choice, u64, u64) {
        let most = question.most_tokens.unwrap_or(u64::MAX);
        let thought = match question.thoughts {
            0 => String::new(),
            sentences => text::thought(dice, sentences),
        };
        let (thought, reasoning, thought_cut) = self.within(thought, most);
        let calls: Vec<_> = question.wanted_tools().map(|tool| call(tool, dice)).collect();
        if calls.is_empty() {
            let (text, spoken, text_cut) = self.within(question.text(dice), most - reasoning);
            return (Choice { thought, text, calls, cut: thought_cut || text_cut }, reasoning + spoken, reasoning);
        }
        // Calls are never cut short: half a call is of no use to anyone.
        let count = |call: &ToolCall| {
            let arguments = self.tokens.count(&call.arguments.to_string());
            self.tokens.count(&call.name) + arguments + AROUND_A_TOOL_CALL
        };
        let called: u64 = calls.iter().map(count).sum();
        (Choice { thought, text: String::new(), calls, cut: false }, reasoning + called, reasoning)
    }

    /// As much of the text as fits in `most` tokens, how many those are, and whether anything was left out.
    fn within(&self, text: String, most: u64) -> (String, u64, bool) {
        let tokens = self.tokens.count(&text);
        if tokens <= most {
            (text, tokens, false)
        } else {
            (self.tokens.beginning(&text, most).to_string(), most, true)
        }
    }
}

impl Answer {
    /// An answer that is always the same: about 1.1 KB of text, so that a whole reply has about 1.6 KB.
    pub(super) fn canned() -> Self {
        let text = "Store the answer once and reuse it: the same question is asked many times a day. ".repeat(13);
        let choice = Choice { thought: String::new(), text, calls: Vec::new(), cut: false };
        Self { seed: 1, choices: vec![choice], tokens: CANNED }
    }
}

impl Question {
    /// A question for prose, without tools or thoughts.
    pub(super) fn plain(model: String, stream: bool, pieces: Vec<Piece>) -> Self {
        Self {
            model,
            stream,
            pieces,
            asked: None,
            most_tokens: None,
            form: Form::Prose,
            tools: Vec::new(),
            choice: ToolChoice::Auto,
            thoughts: 0,
            choices: 1,
        }
    }

    fn text(&self, dice: &mut Dice) -> String {
        match &self.form {
            Form::Prose => text::answer(dice),
            Form::AnyObject => schema::any_object(dice).to_string(),
            Form::Matching(schema) => schema::sample(schema, dice).to_string(),
        }
    }

    /// The tools that this question is to be answered with.
    fn wanted_tools(&self) -> impl Iterator<Item = &Tool> {
        let asked = self.asked.as_deref().unwrap_or_default().to_lowercase();
        let named = |tool: &&Tool| mentions(&asked, &tool.name);
        let wanted: Vec<&Tool> = match &self.choice {
            ToolChoice::Never => Vec::new(),
            ToolChoice::Auto => self.tools.iter().filter(named).take(MOST_CALLS).collect(),
            ToolChoice::Always => self.tools.iter().find(named).or(self.tools.first()).into_iter().collect(),
            ToolChoice::Only(name) => self.tools.iter().filter(|tool| tool.name == *name).take(1).collect(),
        };
        wanted.into_iter()
    }
}

/// Whether the lower-case text has one of the longer words of the tool's name: "weather" asks for `get_weather`.
fn mentions(text: &str, tool: &str) -> bool {
    let tool = tool.to_lowercase();
    let mut words = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    words.any(|word| word == tool || (word.len() > 3 && tool.split(['_', '-', '.']).any(|part| part == word)))
}

fn call(tool: &Tool, dice: &mut Dice) -> ToolCall {
    let mut arguments = schema::sample(&tool.schema, dice);
    if !arguments.is_object() {
        arguments = Value::Object(serde_json::Map::new());
    }
    ToolCall { id: dice.id(""), name: tool.name.clone(), arguments }
}

/// The text in a piece of JSON, wherever it is.
#[derive(Default)]
struct Gathered {
    text: String,
    /// Images, files, sounds: whatever is not text.
    others: u64,
}

impl Gathered {
    fn add(&mut self, value: &Value) {
        match value {
            Value::Null => {}
            Value::Bool(_) | Value::Number(_) => self.push(&value.to_string()),
            Value::String(text) => self.push(text),
            Value::Array(values) => values.iter().for_each(|value| self.add(value)),
            Value::Object(members) => {
                if members.get("type").and_then(Value::as_str).is_some_and(|kind| NOT_TEXT.contains(&kind)) {
                    self.others += 1;
                    return;
                }
                members
                    .iter()
                    .filter(|(name, _)| !NOT_SAID.contains(&name.as_str()))
                    .for_each(|(_, value)| self.add(value));
            }
        }
    }

    fn push(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(text);
    }
}

/// Kinds of content that are not text, in any API.
const NOT_TEXT: &[&str] =
    &["image", "image_url", "input_image", "input_audio", "input_file", "file", "document", "container_upload"];
/// Members that say how a message is to be handled, not what it says.
const NOT_SAID: &[&str] =
    &["type", "role", "id", "call_id", "tool_call_id", "tool_use_id", "cache_control", "signature", "status"];

/// All the text in a piece of JSON.
pub(super) fn gathered_text(value: &Value) -> String {
    let mut gathered = Gathered::default();
    gathered.add(value);
    gathered.text
}

/// The model a body asks for. Names that begin with `nope-` do not exist, so that this case can be tried.
pub(super) fn model_of(body: &Value) -> Result<String, Problem> {
    named_model(body["model"].as_str().filter(|model| !model.is_empty()).ok_or(Problem::Missing("model"))?)
}

/// The model of this name.
pub(super) fn named_model(model: &str) -> Result<String, Problem> {
    if model.starts_with("nope-") { Err(Problem::UnknownModel(model.to_owned())) } else { Ok(model.to_owned()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn question(asked: &str) -> Question {
        let pieces = vec![Mind::new().piece("user", &json!(asked), None)];
        Question {
            asked: Some(asked.to_owned()),
            tools: vec![
                Tool { name: "get_weather".to_owned(), schema: json!({"type": "object"}) },
                Tool { name: "send_mail".to_owned(), schema: json!(null) },
            ],
            ..Question::plain("model".to_owned(), false, pieces)
        }
    }

    fn called(question: &Question) -> Vec<&str> {
        question.wanted_tools().map(|tool| tool.name.as_str()).collect()
    }

    #[test]
    fn tools_are_called_when_the_user_asks_for_them() {
        assert_eq!(called(&question("What is the weather in Paris?")), ["get_weather"]);
        assert_eq!(called(&question("Call get_weather, then send_mail.")), ["get_weather", "send_mail"]);
        assert!(called(&question("Hello there, can you get me something?")).is_empty());
    }

    #[test]
    fn a_tool_choice_decides_over_what_the_user_says() {
        let asked = question("What is the weather in Paris?");
        let with = |choice| Question { choice, ..asked.clone() };
        assert!(called(&with(ToolChoice::Never)).is_empty());
        assert_eq!(called(&with(ToolChoice::Always)), ["get_weather"]);
        assert_eq!(called(&with(ToolChoice::Only("send_mail".to_owned()))), ["send_mail"]);
        assert_eq!(called(&Question { choice: ToolChoice::Always, ..question("Hello") }), ["get_weather"]);
    }

    #[test]
    fn an_answer_is_as_long_as_allowed() {
        let mind = Mind::new();
        let mut question = question("Hello");
        let full = mind.answer(&question, Caching::Unasked);
        assert!(!full.choices[0].cut);
        assert_eq!(full.tokens.output, mind.tokens.count(&full.choices[0].text));
        question.most_tokens = Some(5);
        let short = mind.answer(&question, Caching::Unasked);
        assert!(short.choices[0].cut);
        assert_eq!(short.tokens.output, 5);
        question.thoughts = 4;
        let thought = mind.answer(&question, Caching::Unasked);
        assert_eq!((thought.tokens.output, thought.tokens.reasoning, &*thought.choices[0].text), (5, 5, ""));
    }

    #[test]
    fn the_canned_answer_is_charged_what_it_says() {
        let canned = Answer::canned();
        assert_eq!(canned.tokens.output, Mind::new().tokens.count(&canned.choices[0].text));
    }

    #[test]
    fn each_choice_is_an_answer_of_its_own() {
        let mind = Mind::new();
        let answer = mind.answer(&Question { choices: 3, ..question("Hello") }, Caching::Unasked);
        assert_eq!(answer.choices.len(), 3);
        assert_ne!(answer.choices[0].text, answer.choices[1].text);
        let counted: u64 = answer.choices.iter().map(|choice| mind.tokens.count(&choice.text)).sum();
        assert_eq!(answer.tokens.output, counted);
    }

    #[test]
    fn text_is_found_wherever_it_is() {
        let content = json!([
            {"type": "text", "text": "look at", "cache_control": {"type": "ephemeral"}},
            {"type": "image_url", "image_url": {"url": "data:…"}},
            {"type": "tool_result", "tool_use_id": "x", "content": [{"type": "text", "text": "this"}]},
        ]);
        assert_eq!(gathered_text(&content), "look at\nthis");
    }
}
