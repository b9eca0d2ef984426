//! What goes wrong between the app, weir and its provider, as a table: each fault, and for each kind of call what the app
//! sees of it and what is in the books.

use std::time::Duration;

use super::calls::Kind::{self, Embedding, EventStream, Follower, Hit, Session, Stream, Upload, Whole};
use super::row::App::{Answer, Broken, Error, Nothing, Other};
use super::row::Place::{App, Provider};
use super::row::{Row, Way};
use crate::support::toxic::At::{Body, Byte};
use crate::support::toxic::Fault::{Blackhole, Down, Refuse, ResetAtOnce, Up};
use crate::support::toxic::Harm::{Flip, HalfClose, HangUp, Late, Reset, Stall, Trickle};
use Way::{AfterOne, Heals, NoName, Pooled, Tls, Wire};

use super::row::Certificate::{Expired, Good, OfAnother, Unknown};

/// Those that ask the provider, once each.
const ASKING: &[Kind] = &[Whole, Stream, Embedding, Session, Upload, EventStream];
/// Those that the provider may bill.
const BILLED: &[Kind] = &[Whole, Stream, Embedding, EventStream];
/// Those whose answer has a length.
const MEASURED: &[Kind] = &[Whole, Embedding];
/// Those whose answer comes in pieces.
const STREAMS: &[Kind] = &[Stream, EventStream];

const LATE: Duration = Duration::from_millis(50);
/// The time the app has for a head.
const QUICK_HEAD: &str = "connections: { header_timeout: 300ms }";
const QUICK_CONNECT: &str = "upstream: { connect_timeout: 300ms }";
const QUICK_ANSWER: &str = "upstream: { first_byte_timeout: 500ms }";
const QUICK_TO_GO_ON: &str = "upstream: { idle_timeout: 500ms }";

/// How a call ends that another one was waiting for as well: both.
macro_rules! twice {
    ($books:literal) => {
        concat!($books, " + ", $books)
    };
}

/// The table.
pub(super) fn rows() -> Vec<Row> {
    [reaching(), answers(), requests(), well(), from_the_app(), to_the_app()].concat()
}

/// The provider cannot be reached: nothing was sent, and nothing is billed.
fn reaching() -> Vec<Row> {
    let unstored = |fault, way| {
        let way: Way = way;
        Row::new(Provider, fault, way).not(&[Hit], "a provider that was never reached has left nothing to store")
    };
    let row = |fault, way| Row::new(Provider, fault, way).see(&[Hit], Answer, "success saved");
    let unreached = |row: Row, status, code, books, both| {
        row.see(ASKING, Error(status, code), books).see(&[Follower], Error(status, code), both)
    };
    let no_connection = |row| {
        let books = "upstream_error connect_error free";
        unreached(row, 502, "connect_error", books, twice!("upstream_error connect_error free"))
    };
    let no_tls = |row| {
        unreached(row, 502, "tls_error", "upstream_error tls_error free", twice!("upstream_error tls_error free"))
    };
    let too_late = |row: Row| {
        let row = row.with(QUICK_CONNECT);
        unreached(row, 504, "timeout", "timeout timeout free", twice!("timeout timeout free"))
    };
    vec![
        no_connection(row("refuses connections", Wire(Refuse))),
        unreached(
            unstored("its name does not resolve", NoName),
            502,
            "dns_error",
            "upstream_error dns_error free",
            twice!("upstream_error dns_error free"),
        ),
        too_late(row("never answers to be connected", Wire(Blackhole))),
        no_tls(row("speaks no TLS", Tls(Good, Some(Down(Byte(0), Flip))))),
        no_tls(row("breaks off the TLS handshake", Tls(Good, Some(Down(Byte(10), Reset))))),
        too_late(row("stalls in the TLS handshake", Tls(Good, Some(Down(Byte(10), Stall))))),
        no_tls(unstored("shows a certificate of somebody else", Tls(OfAnother, None))),
        no_tls(unstored("shows a certificate that has expired", Tls(Expired, None))),
        no_tls(unstored("shows a certificate of nobody weir knows", Tls(Unknown, None))),
    ]
}

/// The provider's answer suffers.
fn answers() -> Vec<Row> {
    let row = |fault, way| Row::new(Provider, fault, way).see(&[Hit], Answer, "success saved");
    let unanswered = lost;
    let silent = |row: Row| {
        row.with(QUICK_ANSWER)
            .see(BILLED, Error(504, "timeout"), "timeout timeout unpriced")
            .see(&[Follower], Error(504, "timeout"), twice!("timeout timeout unpriced"))
            .see(&[Session, Upload], Error(504, "timeout"), "timeout timeout free")
    };
    let broken = |row: Row| {
        row.see(MEASURED, Broken, "upstream_error stream_aborted unpriced")
            .see(&[Session, Upload], Broken, "upstream_error stream_aborted free")
            .see(STREAMS, Broken, "upstream_error stream_aborted estimated")
            .see(&[Follower], Broken, "upstream_error stream_aborted estimated + upstream_error stream_aborted saved")
    };
    vec![
        // Whether that was a connection depends on how soon it is reset.
        row("takes the connection and resets it", Wire(ResetAtOnce))
            .see(
                &[Whole, Stream, Embedding, EventStream],
                Error(502, "connect_error|connection_reset"),
                "upstream_error connect_error free | upstream_error connection_reset unpriced",
            )
            .see(
                &[Session, Upload],
                Error(502, "connect_error|connection_reset"),
                "upstream_error connect_error free | upstream_error connection_reset free",
            )
            .not(&[Follower], "its call and its leader's may differ, by chance"),
        unanswered(row("hangs up before it answers", Wire(Down(Byte(0), HangUp)))),
        unanswered(row("resets before it answers", Wire(Down(Byte(0), Reset)))),
        unanswered(row("closes its side before it answers", Wire(Down(Byte(0), HalfClose)))),
        unanswered(row("resets in the middle of the head", Wire(Down(Byte(9), Reset)))),
        unanswered(row("answers with something that is not HTTP", Wire(Down(Byte(0), Flip)))),
        row("sends TLS records that cannot be read", AfterOne(Down(Byte(0), Flip)))
            .see(
                &[Whole, Stream, Embedding, EventStream],
                Error(502, "connection_reset"),
                "upstream_error connection_reset unpriced",
            )
            .see(&[Upload], Error(502, "connection_reset"), "upstream_error connection_reset free")
            .see(&[Session], Error(502, "tls_error"), "upstream_error tls_error free")
            .not(&[Follower], "it asks on a connection of its own, whose handshake fails: as in the row of that"),
        silent(row("says nothing", Wire(Down(Byte(0), Stall)))),
        silent(row("stalls in the middle of the head", Wire(Down(Byte(9), Stall)))),
        broken(row("hangs up in the middle of its answer", Wire(Down(Body(20), HangUp)))),
        broken(row("resets in the middle of its answer", Wire(Down(Body(20), Reset)))),
        broken(row("closes its side in the middle of its answer", Wire(Down(Body(20), HalfClose)))),
        row("stalls in the middle of its answer", Wire(Down(Body(20), Stall)))
            .with(QUICK_TO_GO_ON)
            .see(MEASURED, Broken, "timeout timeout unpriced")
            .see(&[Session, Upload], Broken, "timeout timeout free")
            .see(STREAMS, Broken, "timeout timeout estimated")
            .see(&[Follower], Broken, "timeout timeout estimated + timeout timeout saved"),
        row("garbles its answer", Wire(Down(Body(0), Flip)))
            .see(MEASURED, Other, "upstream_error invalid_response unpriced")
            .see(&[Upload], Other, "success free")
            .see(STREAMS, Broken, "upstream_error stream_aborted estimated")
            .see(&[Follower], Broken, "upstream_error stream_aborted estimated + upstream_error stream_aborted saved")
            .see(&[Session], Other, "upstream_error stream_aborted free"),
    ]
}

/// The request suffers on its way to the provider.
fn requests() -> Vec<Row> {
    let row = |fault, way| Row::new(Provider, fault, way).see(&[Hit], Answer, "success saved");
    let bodies = |row: Row| row.not(&[Session], "it sends no body");
    vec![
        bodies(lost(row("hangs up on the request's body", Wire(Up(Body(10), HangUp))))),
        bodies(lost(row("resets in the request's body", Wire(Up(Body(10), Reset))))),
        bodies(lost(row("gets half of the request's body", Wire(Up(Body(10), HalfClose))))),
        lost(row("gets a request that is not HTTP", Wire(Up(Byte(0), Flip)))),
        row("never gets the whole request", Wire(Up(Body(10), Stall)))
            .with(QUICK_ANSWER)
            .see(BILLED, Error(504, "timeout"), "timeout timeout unpriced")
            .see(&[Upload], Error(504, "timeout"), "timeout timeout free")
            .see(&[Follower], Error(504, "timeout"), twice!("timeout timeout unpriced"))
            .not(&[Session], "it sends no body"),
    ]
}

/// The provider may have seen it, and has not answered: what it bills for that is not known. Nobody bills an upload, and the
/// beginning of a session.
fn lost(row: Row) -> Row {
    row.see(BILLED, Error(502, "connection_reset"), "upstream_error connection_reset unpriced")
        .see(&[Session, Upload], Error(502, "connection_reset"), "upstream_error connection_reset free")
        .see(&[Follower], Error(502, "connection_reset"), twice!("upstream_error connection_reset unpriced"))
}

/// Whatever this is, a call outlasts it.
fn well() -> Vec<Row> {
    let row = |fault, way| Row::new(Provider, fault, way).all_well();
    vec![
        row("answers a byte at a time", Wire(Down(Byte(0), Trickle))),
        row("answers late, piece by piece", Wire(Down(Byte(0), Late(LATE)))),
        row("is asked a byte at a time", Wire(Up(Byte(0), Trickle))),
        row("is asked late", Wire(Up(Byte(0), Late(LATE)))),
        row("shakes hands a byte at a time", Tls(Good, Some(Down(Byte(0), Trickle)))),
        row("stalls for a while before it answers", Heals(Down(Byte(0), Stall))),
        row("stalls for a while in the middle of its answer", Heals(Down(Body(20), Stall))),
        row("has hung up on the connection that was kept", Pooled(HangUp)),
        row("has reset the connection that was kept", Pooled(Reset)),
    ]
}

/// The app's request suffers on its way to weir.
fn from_the_app() -> Vec<Row> {
    let row = |fault, way| Row::new(App, fault, way);
    let broken_off = |row: Row| {
        row.see(BILLED, Nothing, "cancelled cancelled free")
            .see(&[Follower], Nothing, "cancelled cancelled free + success priced")
            .see(&[Hit], Nothing, "cancelled cancelled free")
            .see(&[Upload], Nothing, "cancelled cancelled free")
            .not(&[Session], "it sends no body")
    };
    vec![
        row("resets in the middle of the head", Wire(Up(Byte(5), Reset)))
            .see(ASKING, Nothing, "")
            .see(&[Hit], Nothing, "")
            .see(&[Follower], Nothing, "success priced"),
        row("stalls in the middle of the head", Wire(Up(Byte(5), Stall)))
            .with(QUICK_HEAD)
            .see(ASKING, Nothing, "")
            .see(&[Hit], Nothing, "")
            .see(&[Follower], Nothing, "success priced"),
        row("sends something that is not HTTP", Wire(Up(Byte(0), Flip)))
            .see(ASKING, Error(400, ""), "")
            .see(&[Hit], Error(400, ""), "")
            .see(&[Follower], Error(400, ""), "success priced"),
        broken_off(row("resets in the request's body", Wire(Up(Body(10), Reset)))),
        broken_off(row("hangs up in the request's body", Wire(Up(Body(10), HangUp)))),
        row("sends a byte at a time", Wire(Up(Byte(0), Trickle))).all_well(),
        row("sends late", Wire(Up(Byte(0), Late(LATE)))).all_well(),
        row("stalls for a while in the request", Heals(Up(Byte(9), Stall))).all_well(),
    ]
}

/// The answer suffers on its way to the app.
fn to_the_app() -> Vec<Row> {
    let row = |fault, way| Row::new(App, fault, way).pausing();
    // Who hangs up on an answer that is there as a whole has had it, as far as weir can tell.
    let gone = |row: Row, seen| {
        row.see(&[Whole, Embedding], seen, "success priced")
            .see(&[Upload], seen, "success free")
            .see(&[Hit], seen, "success saved")
            .see(STREAMS, seen, "cancelled cancelled estimated")
            .see(&[Session], seen, "cancelled cancelled free + cancelled cancelled unpriced")
            .see(&[Follower], seen, "cancelled cancelled estimated + cancelled cancelled saved")
    };
    vec![
        gone(row("resets before the answer", Wire(Down(Byte(0), Reset))), Nothing),
        gone(row("hangs up before the answer", Wire(Down(Byte(0), HangUp))), Nothing),
        gone(row("resets in the middle of the answer", Wire(Down(Body(20), Reset))), Broken),
        gone(row("hangs up in the middle of the answer", Wire(Down(Body(20), HangUp))), Broken),
        Row::new(App, "takes the answer a byte at a time", Wire(Down(Byte(0), Trickle))).all_well(),
        Row::new(App, "takes the answer late", Wire(Down(Byte(0), Late(LATE)))).all_well(),
        Row::new(App, "stops reading for a while", Heals(Down(Byte(9), Stall))).all_well(),
    ]
}
