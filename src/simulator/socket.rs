//! Socket: serves the realtime API on a connection that has left HTTP behind: its pace, its faults and its books.
//!
//! Knows frames and time; what is said is [`Session`]'s.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tungstenite::Message;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::Role;

use super::bill::Api;
use super::faults::{Oddity, Place, Script};
use super::line::Fuse;
use super::playback::{BrokenOff, Playback};
use super::realtime::{Session, Turn};
use super::reply::{Part, Problem};
use super::{Simulator, openai, rest};

const PATH: &str = "/v1/realtime";
/// How an app in a browser hands over its key.
const KEY_PROTOCOL: &str = "openai-insecure-api-key.";

/// Where a session waits until its connection is no longer HTTP's.
#[derive(Clone, Default)]
pub(super) struct Waiting(Arc<Mutex<Option<Agreed>>>);

/// A session that was agreed to.
pub(super) struct Agreed {
    connection: OnUpgrade,
    model: String,
    script: Script,
}

impl Waiting {
    pub(super) fn take(&self) -> Option<Agreed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Whether a request asks for a session.
pub(super) fn is_asked(head: &Parts) -> bool {
    let upgrade = head.headers.get(UPGRADE).map(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    head.method == Method::GET && head.uri.path() == PATH && upgrade == Some(true)
}

impl Simulator {
    /// Agrees to a session, or refuses it. The handshake itself is on nobody's bill.
    pub(super) fn agree(
        &self,
        head: &Parts,
        connection: OnUpgrade,
        waiting: &Waiting,
        fuse: &Fuse,
    ) -> Result<Response<Playback>, BrokenOff> {
        let mut call = self.books.open();
        let (model, script) = match self.admit(head) {
            Ok(admitted) => admitted,
            Err(problem) => {
                call.finish();
                let page = Playback::page(Api::OpenAi.refusal(&problem, call.number));
                let response = Response::builder().status(problem.status()).header("content-type", "application/json");
                return Ok(response.body(page).expect("the headers are fixed"));
            }
        };
        if script.has(Oddity::Reset) {
            call.break_off();
            fuse.light();
            return Err(BrokenOff);
        }
        call.finish();
        let key = head.headers.get(SEC_WEBSOCKET_KEY).map_or(&b""[..], |key| key.as_bytes());
        let mut response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_ACCEPT, derive_accept_key(key));
        if protocols(&head.headers).any(|protocol| protocol == "realtime") {
            response = response.header(SEC_WEBSOCKET_PROTOCOL, "realtime");
        }
        *waiting.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Agreed { connection, model, script });
        Ok(response.body(Playback::page(bytes::Bytes::new())).expect("the key's digest is plain text"))
    }

    fn admit(&self, head: &Parts) -> Result<(String, Script), Problem> {
        let key = protocols(&head.headers)
            .any(|protocol| protocol.strip_prefix(KEY_PROTOCOL).is_some_and(|key| !key.is_empty()));
        if !key && !openai::has_credential(&head.headers) {
            return Err(Problem::NoCredential);
        }
        let script = Script::of(&head.headers).map_err(|error| Problem::BadScript(error.to_string()))?;
        let script = script.unwrap_or_else(|| self.script.clone());
        if let Some(status) = script.status {
            return Err(Problem::Wanted(status));
        }
        let query = head.uri.query().unwrap_or_default();
        let model = query.split('&').find_map(|pair| pair.strip_prefix("model="));
        let model = model.filter(|model| !model.is_empty()).ok_or(Problem::Missing("model"))?;
        if model.starts_with("nope-") {
            Err(Problem::UnknownModel(model.to_owned()))
        } else {
            Ok((model.to_owned(), script))
        }
    }

    /// Talks until either side has had enough, or the script breaks it off.
    pub(super) async fn talk(&self, agreed: Agreed) {
        let Agreed { connection, model, script } = agreed;
        let Ok(connection) = connection.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(connection), Role::Server, None).await;
        let mut session = Session::new(&model);
        if self.play(session.greeting(), &script, &mut socket).await.is_err() {
            return;
        }
        while let Some(Ok(message)) = socket.next().await {
            let Message::Text(text) = message else { continue };
            for turn in session.hears(&text, &self.mind, &script) {
                if self.play(turn, &script, &mut socket).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Says one turn, at its pace and with its faults.
    async fn play(&self, turn: Turn, script: &Script, socket: &mut Socket) -> Result<(), BrokenOff> {
        let Turn { events, charge, seed, failure } = turn;
        let Some((model, tokens)) = charge else {
            for (_, event) in events {
                say(socket, &event.to_string()).await?;
            }
            return Ok(());
        };
        let timing = self.pace.timing(seed, tokens.output);
        let mut call = self.books.open();
        call.charge(Api::OpenAi, &model, Some(tokens));
        call.weighs(events.iter().filter(|(part, _)| *part == Part::Token).count() as u64);
        let texts: Vec<_> = events.iter().map(|(part, event)| (*part, event.to_string())).collect();
        let ends_after = |place: Option<Place>| place.map(|place| before(place, &texts));
        let (cut, stall, fails) = (ends_after(script.cut), ends_after(script.stall), ends_after(script.stream_error));
        let middle = texts.len() / 2;
        for (index, (part, text)) in texts.iter().enumerate() {
            if cut == Some(index) {
                call.break_off();
                return Err(BrokenOff);
            }
            if stall == Some(index) {
                // Nothing but the end of the connection ends it.
                while socket.next().await.is_some_and(|message| message.is_ok()) {}
                return Err(BrokenOff);
            }
            if fails == Some(index) {
                call.break_off();
                return say(socket, &failure.to_string()).await;
            }
            if *part == Part::End && script.has(Oddity::NoDone) {
                continue;
            }
            rest(match part {
                _ if index == 0 => script.latency.unwrap_or(timing.first),
                _ if script.chunk_delay.is_some() => script.chunk_delay.unwrap_or_default(),
                Part::Token => timing.per_token,
                Part::Frame | Part::End => Duration::ZERO,
            })
            .await;
            let text = if index == middle && script.has(Oddity::BadJson) { r#"{"type": "# } else { text };
            say(socket, text).await?;
            call.served(u64::from(*part == Part::Token));
        }
        call.finish();
        Ok(())
    }
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

async fn say(socket: &mut Socket, text: &str) -> Result<(), BrokenOff> {
    socket.send(Message::text(text)).await.map_err(|_| BrokenOff)
}

/// How many events come before this place.
fn before(place: Place, texts: &[(Part, String)]) -> usize {
    match place {
        Place::Half => texts.len() / 2,
        Place::Chunks(count) => count,
        Place::Bytes(bytes) => {
            let mut left = bytes;
            texts.iter().take_while(|(_, text)| left.checked_sub(text.len()).map(|rest| left = rest).is_some()).count()
        }
    }
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}
