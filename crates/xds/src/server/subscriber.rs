//! What one client has, and what to tell it next: the server's half of delta xDS as values.
//!
//! ```text
//!             request            next(): something to say
//!  (unknown) ────────▶ watching ──────────────────────────▶ awaiting the nonce
//!                         ▲                                        │
//!                         └────────── ACK or NACK of it ───────────┘
//! ```
//!
//! While an answer is outstanding nothing more of the type is sent, so that a slow client is
//! told the latest state once instead of every state in between.
//!
//! Of what changed together, policies and routes come before the workloads and services that they are
//! about, and go after them: a client that takes one response in at a time never knows the one without the
//! other.

mod interest;

use std::collections::BTreeMap;
use std::time::SystemTime;

use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use self::interest::{Difference, Interest, Part};
use super::peers::{Nack, TypeStatus};
use super::resources::ResourceSet;
use crate::resource_type::ResourceType;

const ORDER: [(ResourceType, Part); 9] = [
    (ResourceType::Authorization, Part::Present),
    (ResourceType::AuthorizationPolicy, Part::Present),
    (ResourceType::RequestAuthentication, Part::Present),
    (ResourceType::Route, Part::Present),
    (ResourceType::Address, Part::All),
    (ResourceType::Authorization, Part::All),
    (ResourceType::AuthorizationPolicy, Part::All),
    (ResourceType::RequestAuthentication, Part::All),
    (ResourceType::Route, Part::All),
];

/// One client's subscriptions.
#[derive(Debug)]
pub struct Subscriber {
    /// The node whose pods an on-demand client needs without asking.
    node: String,
    watches: BTreeMap<ResourceType, Watch>,
    /// Types we don't serve, to be answered with nothing: a client may wait for an answer.
    unknown: Vec<String>,
    nonce: u64,
}

#[derive(Debug)]
struct Watch {
    interest: Interest,
    /// The response that was not answered yet.
    outstanding: Option<Outstanding>,
    /// Answered even when there is nothing to say.
    answer_due: bool,
    status: TypeStatus,
}

#[derive(Debug)]
struct Outstanding {
    nonce: String,
    generation: u64,
}

// === impl Subscriber ===

impl Subscriber {
    pub fn new(node: String) -> Self {
        Self {
            node,
            watches: BTreeMap::new(),
            unknown: Vec::new(),
            nonce: 0,
        }
    }

    /// Takes a request in: a subscription, an acknowledgement, or both.
    pub fn receive(&mut self, request: DeltaDiscoveryRequest, now: SystemTime) {
        let Some(resource_type) = ResourceType::from_url(&request.type_url) else {
            if request.response_nonce.is_empty() {
                self.unknown.push(request.type_url);
            }
            return;
        };
        match self.watches.get_mut(&resource_type) {
            None => {
                self.watches.insert(resource_type, Watch::new(request));
            }
            Some(watch) => {
                watch.acknowledge(&request, now);
                watch.interest.change(request);
            }
        }
    }

    /// The next response, if there is anything to say. Call again until there is not.
    pub fn next(&mut self, resources: &ResourceSet) -> Option<DeltaDiscoveryResponse> {
        if let Some(type_url) = self.unknown.pop() {
            self.nonce += 1;
            return Some(DeltaDiscoveryResponse {
                type_url,
                nonce: self.nonce.to_string(),
                ..Default::default()
            });
        }
        for (resource_type, part) in ORDER {
            let Some(watch) = self.watches.get_mut(&resource_type) else {
                continue;
            };
            if watch.outstanding.is_some() {
                // What comes behind may be about what can't be told yet.
                if watch.interest.lags(resource_type, resources) {
                    return None;
                }
                continue;
            }
            let difference = watch
                .interest
                .difference(resource_type, resources, &self.node, part);
            if difference.is_empty() && !watch.answer_due {
                continue;
            }
            self.nonce += 1;
            return Some(watch.respond(
                resource_type,
                difference,
                self.nonce.to_string(),
                resources.generation(),
            ));
        }
        None
    }

    pub fn status(&self) -> BTreeMap<ResourceType, TypeStatus> {
        self.watches
            .iter()
            .map(|(resource_type, watch)| (*resource_type, watch.status.clone()))
            .collect()
    }
}

// === impl Watch ===

impl Watch {
    fn new(request: DeltaDiscoveryRequest) -> Self {
        Self {
            interest: Interest::new(request),
            outstanding: None,
            answer_due: true,
            status: TypeStatus::default(),
        }
    }

    fn acknowledge(&mut self, request: &DeltaDiscoveryRequest, now: SystemTime) {
        // Answers to anything but the latest response are of no interest any more.
        let Some(outstanding) = self
            .outstanding
            .take_if(|outstanding| outstanding.nonce == request.response_nonce)
        else {
            return;
        };
        self.status.acked = outstanding.generation;
        match &request.error_detail {
            None => {}
            Some(error) => self.status.reject(Nack {
                time: now,
                message: error.message.clone(),
                generation: outstanding.generation,
            }),
        }
    }

    fn respond(
        &mut self,
        resource_type: ResourceType,
        difference: Difference,
        nonce: String,
        generation: u64,
    ) -> DeltaDiscoveryResponse {
        self.answer_due = false;
        self.status.sent = generation;
        self.status.resources = self.interest.count();
        self.outstanding = Some(Outstanding {
            nonce: nonce.clone(),
            generation,
        });
        DeltaDiscoveryResponse {
            system_version_info: generation.to_string(),
            type_url: resource_type.url().to_owned(),
            nonce,
            resources: difference.resources,
            removed_resources: difference.removed,
        }
    }
}

#[cfg(test)]
mod tests;
