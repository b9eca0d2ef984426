//! Shape: a pod as far as it is looked at: labels, annotations, containers, their variables. The rest is never touched.

use serde_json::{Map, Value};

/// A pod, or the template of one, whose parts that matter here have the shape they should have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pod<'a>(&'a Value);

/// The two lists of containers that a pod may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    /// `initContainers`
    Init,
    /// `containers`
    Main,
}

impl List {
    /// Where it is in a pod (RFC 6901).
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Init => "/spec/initContainers",
            Self::Main => "/spec/containers",
        }
    }
}

impl<'a> Pod<'a> {
    /// `object`, if it has the shape of a pod.
    pub(super) fn of(object: &'a Value) -> Option<Self> {
        let pod = Self(object);
        let parts = ["/metadata", "/metadata/labels", "/metadata/annotations", "/spec/nodeSelector"];
        let are_sections =
            parts.iter().all(|path| object.pointer(path).is_none_or(|part| part.is_object() || part.is_null()));
        let are_lists = ["/spec/volumes", List::Init.path(), List::Main.path()]
            .iter()
            .all(|path| object.pointer(path).is_none_or(|part| part.is_array() || part.is_null()));
        let containers = || pod.containers(List::Init).iter().chain(pod.containers(List::Main));
        let are_containers =
            object.is_object() && containers().all(|one| one["name"].is_string() && has_variables(one));
        (are_sections && are_lists && are_containers && !pod.containers(List::Main).is_empty()).then_some(pod)
    }

    /// What stands at `path` (RFC 6901); null where nothing does.
    pub(super) fn at(self, path: &str) -> &'a Value {
        self.0.pointer(path).unwrap_or(&Value::Null)
    }

    /// One of the lists of containers.
    pub(super) fn containers(self, list: List) -> &'a [Value] {
        self.at(list.path()).as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// All containers, with the list each is in and its place there.
    pub(super) fn all_containers(self) -> impl Iterator<Item = (List, usize, &'a Value)> {
        [List::Init, List::Main].into_iter().flat_map(move |list| {
            self.containers(list).iter().enumerate().map(move |(index, container)| (list, index, container))
        })
    }

    /// Where the container called `name` is.
    pub(super) fn find(self, name: &str) -> Option<(List, usize)> {
        let mut all = self.all_containers();
        all.find(|(_, _, container)| container["name"] == name).map(|(list, index, _)| (list, index))
    }

    /// The labels.
    pub(super) fn labels(self) -> Option<&'a Map<String, Value>> {
        self.at("/metadata/labels").as_object()
    }

    /// The value of a label.
    pub(super) fn label(self, name: &str) -> Option<&'a str> {
        self.labels()?.get(name)?.as_str()
    }

    /// The annotations.
    pub(super) fn annotations(self) -> Option<&'a Map<String, Value>> {
        self.at("/metadata/annotations").as_object()
    }

    /// The value of an annotation.
    pub(super) fn annotation(self, name: &str) -> Option<&'a str> {
        self.annotations()?.get(name)?.as_str()
    }
}

/// The variables of a container.
pub(super) fn variables(container: &Value) -> &[Value] {
    container["env"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The variable called `name`, wherever its value comes from.
pub(super) fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a Value> {
    variables(container).iter().find(|variable| variable["name"] == name)
}

/// The name of a container.
pub(super) fn name(container: &Value) -> &str {
    container["name"].as_str().unwrap_or_default()
}

/// Whether what should be a container's variables is that.
fn has_variables(container: &Value) -> bool {
    match &container["env"] {
        Value::Null => true,
        Value::Array(all) => all.iter().all(|variable| variable["name"].is_string()),
        _ => false,
    }
}
