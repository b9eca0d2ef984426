//! Loops: the corridor's part about agent loops: what makes two of their calls equal.

use serde_json_borrow::Value;

use crate::provider::endpoint::Endpoint;
use crate::provider::last_turn::last_turn;
use crate::record::call::Call;
use crate::record::fingerprint::Fingerprint;
use crate::runs::wording::Wording;

/// What a call asks, for telling one that asks the same; `None` if it is no conversation.
///
/// The same words to another model or from another agent ask for another opinion.
pub(super) fn question(endpoint: Endpoint, body: &Value<'_>, call: &Call) -> Option<Fingerprint> {
    let mut wording = Wording::default();
    last_turn(endpoint, body, &mut |text| wording.push(text));
    if wording.is_empty() {
        return None;
    }
    for asked in [&call.model, &call.caller.agent] {
        wording.push(asked.as_deref().unwrap_or_default());
    }
    Some(wording.finish())
}
