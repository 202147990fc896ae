//! What a ConfigMap lays over the objects that run a waypoint, as Istio has it: strategic merge
//! patches, one for each object, by a key of its name. A Gateway names one for itself; one in the
//! root namespace is labelled for all Gateways of a class.

mod lay;
mod merge;

use std::fmt;

use lay::lay;
use serde_json::Value;

use crate::kinds::config_map::ConfigMap;
use crate::kinds::deployment::Deployment;
use crate::kinds::gateway::{Gateway, ParametersReference};
use crate::kinds::metadata::ObjectMeta;
use crate::kinds::service::Service;
use crate::kinds::service_account::ServiceAccount;
use crate::labels;
use crate::node::{Node, Position};
use crate::object::{ObjectKey, Resource};
use crate::parse;
use crate::reader::{self, RemarkKind};
use crate::view::View;
use crate::waypoint::deployment::MOST_REPLICAS;

const SERVICE_ACCOUNT: &str = "serviceAccount";
const SERVICE: &str = "service";
const DEPLOYMENT: &str = "deployment";
const HONOURED: [&str; 3] = [DEPLOYMENT, SERVICE, SERVICE_ACCOUNT];
/// Nobody scales pods here, or evicts them.
const NOT_HONOURED: [&str; 2] = ["horizontalPodAutoscaler", "podDisruptionBudget"];

/// The objects that run a waypoint.
pub(super) struct Objects {
    pub(super) service_account: ServiceAccount,
    pub(super) service: Service,
    pub(super) deployment: Deployment,
}

/// One ConfigMap, read.
#[derive(Clone, Debug)]
pub(crate) struct Parameters {
    metadata: ObjectMeta,
    deployment: Option<Value>,
    service: Option<Value>,
    service_account: Option<Value>,
    /// With any of these, nothing of it is used.
    pub(crate) mistakes: Vec<Mistake>,
    pub(crate) not_honoured: Vec<Mistake>,
}

/// What of a ConfigMap has a meaning that is not followed, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    key: String,
    /// Of the key's text, from 1; 0 where it is about all of it.
    line: u32,
    field: String,
    message: String,
}

/// Whether a ConfigMap has anything to say of waypoints.
pub(crate) fn is_meant(config_map: &ConfigMap) -> bool {
    let mut keys = HONOURED.iter().chain(&NOT_HONOURED);
    config_map
        .metadata
        .label(labels::DEFAULTS_FOR_CLASS)
        .is_some()
        || keys.any(|key| config_map.data.contains_key(*key))
}

/// The name of the ConfigMap that a Gateway has for itself.
pub(crate) fn named_by(gateway: &Gateway) -> Option<&str> {
    Some(&reference(gateway)?.name)
}

fn reference(gateway: &Gateway) -> Option<&ParametersReference> {
    gateway
        .spec
        .infrastructure
        .as_ref()?
        .parameters_ref
        .as_ref()
}

impl View {
    /// What the Gateway's class lays over its waypoint's objects, and then what the Gateway
    /// itself does; or why one of them can't be followed.
    pub(super) fn parameters(&self, gateway: &Gateway) -> Result<[Option<&Parameters>; 2], String> {
        let class = gateway.spec.gateway_class_name.as_str();
        let defaults = self.defaults_for(class)?;
        let Some(reference) = reference(gateway) else {
            return Ok([defaults, None]);
        };
        let namespace = gateway.metadata.namespace.as_str();
        let of = reference.namespace.as_deref().unwrap_or(namespace);
        let (group, kind) = (reference.group.as_str(), reference.kind.as_str());
        if (group, kind, of) != ("", "ConfigMap", namespace) {
            return Err(format!(
                "spec.infrastructure.parametersRef names {kind} {of}/{} of group {group:?}: only a \
                 ConfigMap (group \"\") of namespace {namespace} is read",
                reference.name
            ));
        }
        let contents = self.contents(namespace);
        let named = contents.and_then(|one| one.parameters.get(reference.name.as_str()));
        let named = named.ok_or_else(|| {
            format!(
                "spec.infrastructure.parametersRef: there is no ConfigMap {namespace}/{}",
                reference.name
            )
        })?;
        named.understood()?;
        Ok([defaults, Some(named)])
    }

    /// What of a Gateway's parameters has no effect.
    pub(crate) fn not_honoured(&self, gateway: &Gateway) -> Vec<String> {
        let parameters = self.parameters(gateway).unwrap_or_default();
        let parameters = parameters.into_iter().flatten();
        parameters
            .flat_map(|one| one.not_honoured.iter().map(|mistake| one.said(mistake)))
            .collect()
    }

    /// The oldest of those that are labelled for the class.
    fn defaults_for(&self, class: &str) -> Result<Option<&Parameters>, String> {
        let root = self.context.root_namespace.clone();
        if let Some(known) = self.gateway_classes.get(class)
            && known.spec.parameters_ref.is_some()
        {
            return Err(format!("GatewayClass {class}: {}", of_class(self, class)));
        }
        let contents = self.contents(&root).into_iter();
        let labelled = contents
            .flat_map(|contents| contents.parameters.values())
            .filter(|one| one.metadata.label(labels::DEFAULTS_FOR_CLASS) == Some(class))
            .min_by_key(|one| one.metadata.age());
        labelled
            .map(|one| one.understood().map(|()| &**one))
            .transpose()
    }

    /// Whether the ConfigMap, as it is now, shapes the waypoints of the class.
    pub(crate) fn is_default_for(&self, config_map: &ObjectKey, class: &str) -> bool {
        let contents = self.contents(&config_map.namespace);
        let known = contents.and_then(|contents| contents.parameters.get(&config_map.name));
        config_map.namespace == self.context.root_namespace
            && known
                .is_some_and(|one| one.metadata.label(labels::DEFAULTS_FOR_CLASS) == Some(class))
    }
}

/// Where the parameters of a class belong.
pub(crate) fn of_class(view: &View, class: &str) -> String {
    format!(
        "spec.parametersRef is not read: label a ConfigMap of namespace {} with {}: {class}",
        view.context.root_namespace,
        labels::DEFAULTS_FOR_CLASS
    )
}

// === impl Parameters ===

impl Parameters {
    pub(crate) fn read(config_map: &ConfigMap) -> Self {
        let mut parameters = Self {
            metadata: config_map.metadata.clone(),
            deployment: None,
            service: None,
            service_account: None,
            mistakes: Vec::new(),
            not_honoured: Vec::new(),
        };
        for (key, text) in &config_map.data {
            match key.as_str() {
                DEPLOYMENT => parameters.deployment = parameters.patch::<Deployment>(key, text),
                SERVICE => parameters.service = parameters.patch::<Service>(key, text),
                SERVICE_ACCOUNT => {
                    parameters.service_account = parameters.patch::<ServiceAccount>(key, text);
                }
                key if NOT_HONOURED.contains(&key) => {
                    parameters
                        .not_honoured
                        .push(Mistake::about(key, "is not honoured"));
                }
                key => {
                    let known = HONOURED.join(", ");
                    let message = format!("is no object of a waypoint: use one of {known}");
                    parameters.mistakes.push(Mistake::about(key, &message));
                }
            }
        }
        parameters
    }

    /// The patch of one key; notes what is wrong with it.
    fn patch<T: Resource>(&mut self, key: &str, text: &str) -> Option<Value> {
        let mistake = |position: Position, field: &str, message: String| Mistake {
            key: key.to_owned(),
            line: position.line,
            field: field.to_owned(),
            message,
        };
        let node = match parse::document(text) {
            Ok(node) => node?,
            Err((position, message)) => {
                self.mistakes.push(mistake(position, "", message));
                return None;
            }
        };
        let kind = node.get("kind").and_then(Node::as_str);
        if kind.is_some_and(|kind| kind != T::KIND.name()) {
            let message = format!("must be {}, or left out", T::KIND.name());
            self.mistakes
                .push(mistake(node.locate("kind"), "kind", message));
        }
        for (field, message) in merge::check(&node) {
            self.mistakes
                .push(mistake(node.locate(&field), &field, message));
        }
        let remarks = match reader::read::<T>(&node) {
            Ok((_, remarks)) => remarks,
            Err(error) => {
                let (position, field) = error.place.unwrap_or_default();
                self.mistakes.push(mistake(position, &field, error.message));
                return None;
            }
        };
        for remark in remarks
            .iter()
            .filter(|one| !merge::is_directive(&one.field))
        {
            let place = |message| mistake(remark.position, &remark.field, message);
            match remark.kind {
                RemarkKind::NotHonoured => {
                    self.not_honoured.push(place("is not honoured".to_owned()));
                }
                RemarkKind::Unknown { suggestion } => {
                    let meant = suggestion
                        .map_or(String::new(), |field| format!(" (did you mean {field}?)"));
                    self.mistakes
                        .push(place(format!("is not a known field{meant}")));
                }
            }
        }
        Some(node.to_json())
    }

    fn understood(&self) -> Result<(), String> {
        match self.mistakes.first() {
            Some(mistake) => Err(self.said(mistake)),
            None => Ok(()),
        }
    }

    /// What is wrong with it, for a person.
    pub(crate) fn said(&self, mistake: &Mistake) -> String {
        let ObjectMeta {
            namespace, name, ..
        } = &self.metadata;
        format!(
            "ConfigMap {namespace}/{name}: {}: {mistake}",
            mistake.place()
        )
    }

    /// Lays the patches over the objects.
    pub(super) fn over(&self, objects: Objects) -> Result<Objects, String> {
        self.lay_over(objects)
            .map_err(|mistake| self.said(&mistake))
    }

    fn lay_over(&self, objects: Objects) -> Result<Objects, Mistake> {
        let objects = Objects {
            service_account: lay(
                SERVICE_ACCOUNT,
                self.service_account.as_ref(),
                objects.service_account,
            )?,
            service: lay(SERVICE, self.service.as_ref(), objects.service)?,
            deployment: lay(DEPLOYMENT, self.deployment.as_ref(), objects.deployment)?,
        };
        match objects.deployment.replicas() {
            many if many > MOST_REPLICAS => Err(Mistake {
                field: "spec.replicas".to_owned(),
                ..Mistake::about(
                    DEPLOYMENT,
                    &format!("{many} pods are more than {MOST_REPLICAS}"),
                )
            }),
            _ => Ok(objects),
        }
    }
}

// === impl Mistake ===

impl Mistake {
    fn about(key: &str, message: &str) -> Self {
        Self {
            key: key.to_owned(),
            line: 0,
            field: String::new(),
            message: message.to_owned(),
        }
    }

    /// The path of the key in the ConfigMap.
    pub(crate) fn place(&self) -> String {
        match self.key.contains(['.', '[']) {
            true => format!("data[\"{}\"]", self.key),
            false => format!("data.{}", self.key),
        }
    }
}

/// What stands after the place.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line != 0 {
            write!(f, "line {}: ", self.line)?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests;
