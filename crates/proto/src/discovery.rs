//! The envelope of xDS: requests, responses, resources.

use prost::bytes::Bytes;
use prost::{DecodeError, Message};
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Body as HttpBody, StdError};
use tonic::{IntoStreamingRequest, Response, Status as GrpcStatus, Streaming};
use tonic_prost::ProstCodec;

pub use crate::generated::envoy::service::discovery::v3::{
    CacheControl, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
    DiscoveryResponse, Node, Resource, Status,
    aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    aggregated_discovery_service_server::{
        AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
    },
};

const DELTA_AGGREGATED_RESOURCES: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// A [`DeltaDiscoveryResponse`] as a client reads it: each resource a slice of the message. The
/// first response carries the whole mesh; decoded at once it would take several times the memory
/// that stays in use.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct EncodedResponse {
    #[prost(bytes = "bytes", repeated, tag = "2")]
    resources: Vec<Bytes>,
    #[prost(string, tag = "4")]
    pub type_url: String,
    #[prost(string, tag = "5")]
    pub nonce: String,
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
}

// === impl EncodedResponse ===

impl EncodedResponse {
    /// Whether all of it can be read.
    pub fn check(&self) -> Result<(), DecodeError> {
        let mut resources = self.resources.iter();
        resources.try_for_each(|encoded| Resource::decode(encoded.clone()).map(drop))
    }

    /// How many resources it has.
    pub fn count(&self) -> usize {
        self.resources.len()
    }

    /// Its resources, decoded one by one.
    pub fn resources(self) -> impl Iterator<Item = Result<Resource, DecodeError>> {
        self.resources.into_iter().map(Resource::decode)
    }
}

impl From<&DeltaDiscoveryResponse> for EncodedResponse {
    fn from(response: &DeltaDiscoveryResponse) -> Self {
        let resources = response.resources.iter();
        Self {
            resources: resources.map(|one| one.encode_to_vec().into()).collect(),
            type_url: response.type_url.clone(),
            nonce: response.nonce.clone(),
            removed_resources: response.removed_resources.clone(),
        }
    }
}

/// Opens a delta stream.
pub async fn delta_stream<T>(
    channel: T,
    largest: usize,
    requests: impl IntoStreamingRequest<Message = DeltaDiscoveryRequest>,
) -> Result<Response<Streaming<EncodedResponse>>, GrpcStatus>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    let mut client = Grpc::new(channel)
        .max_decoding_message_size(largest)
        .max_encoding_message_size(largest);
    client
        .ready()
        .await
        .map_err(|error| GrpcStatus::unknown(format!("not ready: {}", error.into())))?;
    let path = PathAndQuery::from_static(DELTA_AGGREGATED_RESOURCES);
    let requests = requests.into_streaming_request();
    client
        .streaming(requests, path, ProstCodec::default())
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response() -> DeltaDiscoveryResponse {
        let resource = |name: &str| Resource {
            name: name.to_owned(),
            version: "1".to_owned(),
            ..Default::default()
        };
        DeltaDiscoveryResponse {
            type_url: "type".to_owned(),
            nonce: "nonce".to_owned(),
            resources: vec![resource("one"), resource("other")],
            removed_resources: vec!["gone".to_owned()],
            ..Default::default()
        }
    }

    #[test]
    fn it_is_the_same_message() {
        let response = response();
        let bytes = response.encode_to_vec();
        let encoded = EncodedResponse::decode(&bytes[..]).expect("decodes");
        assert_eq!(encoded, EncodedResponse::from(&response));
        assert_eq!(encoded.encode_to_vec(), bytes);
        assert_eq!(encoded.check(), Ok(()));
        let resources: Result<Vec<Resource>, _> = encoded.resources().collect();
        assert_eq!(resources, Ok(response.resources));
    }

    #[test]
    fn what_is_no_resource_is_noticed() {
        let mut encoded = EncodedResponse::from(&response());
        encoded.resources.push(Bytes::from_static(b"\x0a\xff"));
        assert!(encoded.check().is_err());
    }
}
