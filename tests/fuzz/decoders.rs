//! Every request decoder behind the one door that bytes from a socket pass: split a frame, read its
//! header, decode the body as the type that the header names.
//!
//! Used by the test that damages requests at random and by the coverage-guided fuzz target.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::RequestHeader;
use vltava_protocol::frame::{FRAME_BYTES_MAX, FrameDecoder, parse_head};
use vltava_protocol::messages::{
    Encodable, HeaderVersion, Message, Request, StrBytes, VersionRange, decode_request,
};

/// One API's request.
pub(crate) struct Decoder {
    /// Kafka's name of the request.
    pub(crate) name: &'static str,
    /// Its API key.
    pub(crate) key: i16,
    /// The versions that can be decoded.
    pub(crate) versions: VersionRange,
    /// The version of its header.
    pub(crate) header_version: fn(i16) -> i16,
    /// Decodes a body and encodes it again; none when it does not decode.
    decode: fn(Bytes, i16) -> Option<Bytes>,
    /// A body of default values.
    default: fn(i16) -> Option<Bytes>,
}

fn decode<R: Request>(body: Bytes, version: i16) -> Option<Bytes> {
    encode(&decode_request::<R>(body, version).ok()?, version)
}

fn encode<R: Request>(request: &R, version: i16) -> Option<Bytes> {
    let mut body = BytesMut::new();
    // Some values decode in a version that cannot encode them: that is no seed, and no fault.
    request.encode(&mut body, version).ok()?;
    Some(body.freeze())
}

const fn of<R: Request + Default>(name: &'static str) -> Decoder {
    Decoder {
        name,
        key: R::KEY,
        versions: <R as Message>::VERSIONS,
        header_version: <R as HeaderVersion>::header_version,
        decode: decode::<R>,
        default: |version| encode(&R::default(), version),
    }
}

macro_rules! decoders {
    ($($request:ident,)*) => {
        /// All requests that the wire crate can decode.
        pub(crate) const DECODERS: &[Decoder] =
            &[$(of::<kafka_protocol::messages::$request>(stringify!($request)),)*];
    };
}

decoders![
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    AddRaftVoterRequest,
    AllocateProducerIdsRequest,
    AlterClientQuotasRequest,
    AlterConfigsRequest,
    AlterPartitionRequest,
    AlterPartitionReassignmentsRequest,
    AlterReplicaLogDirsRequest,
    AlterShareGroupOffsetsRequest,
    AlterUserScramCredentialsRequest,
    ApiVersionsRequest,
    AssignReplicasToDirsRequest,
    BeginQuorumEpochRequest,
    BrokerHeartbeatRequest,
    BrokerRegistrationRequest,
    ConsumerGroupDescribeRequest,
    ConsumerGroupHeartbeatRequest,
    ControllerRegistrationRequest,
    CreateAclsRequest,
    CreateDelegationTokenRequest,
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DeleteAclsRequest,
    DeleteGroupsRequest,
    DeleteRecordsRequest,
    DeleteShareGroupOffsetsRequest,
    DeleteShareGroupStateRequest,
    DeleteTopicsRequest,
    DescribeAclsRequest,
    DescribeClientQuotasRequest,
    DescribeClusterRequest,
    DescribeConfigsRequest,
    DescribeDelegationTokenRequest,
    DescribeGroupsRequest,
    DescribeLogDirsRequest,
    DescribeProducersRequest,
    DescribeQuorumRequest,
    DescribeShareGroupOffsetsRequest,
    DescribeTopicPartitionsRequest,
    DescribeTransactionsRequest,
    DescribeUserScramCredentialsRequest,
    ElectLeadersRequest,
    EndQuorumEpochRequest,
    EndTxnRequest,
    EnvelopeRequest,
    ExpireDelegationTokenRequest,
    FetchRequest,
    FetchSnapshotRequest,
    FindCoordinatorRequest,
    GetTelemetrySubscriptionsRequest,
    HeartbeatRequest,
    IncrementalAlterConfigsRequest,
    InitProducerIdRequest,
    InitializeShareGroupStateRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    ListConfigResourcesRequest,
    ListGroupsRequest,
    ListOffsetsRequest,
    ListPartitionReassignmentsRequest,
    ListTransactionsRequest,
    MetadataRequest,
    OffsetCommitRequest,
    OffsetDeleteRequest,
    OffsetFetchRequest,
    OffsetForLeaderEpochRequest,
    ProduceRequest,
    PushTelemetryRequest,
    ReadShareGroupStateRequest,
    ReadShareGroupStateSummaryRequest,
    RemoveRaftVoterRequest,
    RenewDelegationTokenRequest,
    SaslAuthenticateRequest,
    SaslHandshakeRequest,
    ShareAcknowledgeRequest,
    ShareFetchRequest,
    ShareGroupDescribeRequest,
    ShareGroupHeartbeatRequest,
    SyncGroupRequest,
    TxnOffsetCommitRequest,
    UnregisterBrokerRequest,
    UpdateFeaturesRequest,
    UpdateRaftVoterRequest,
    VoteRequest,
    WriteShareGroupStateRequest,
    WriteTxnMarkersRequest,
];

impl Decoder {
    /// A whole frame with its length, of this API's header and `body`.
    pub(crate) fn frame(&self, version: i16, body: &[u8]) -> Vec<u8> {
        let mut frame = BytesMut::from(&[0; 4][..]);
        RequestHeader::default()
            .with_request_api_key(self.key)
            .with_request_api_version(version)
            .with_correlation_id(7)
            .with_client_id(Some(StrBytes::from_static_str("fuzz")))
            .encode(&mut frame, (self.header_version)(version))
            .expect("a header of constants encodes");
        frame.extend_from_slice(body);
        set_length(&mut frame);
        frame.to_vec()
    }

    /// A frame whose body holds default values, where such a body exists.
    pub(crate) fn default_frame(&self, version: i16) -> Option<Vec<u8>> {
        Some(self.frame(version, &(self.default)(version)?))
    }

    /// Decodes a body alone; gives it as this version writes it.
    pub(crate) fn canonical(&self, version: i16, body: Bytes) -> Option<Bytes> {
        (self.decode)(body, version)
    }
}

/// Makes the length of a frame true.
pub(crate) fn set_length(frame: &mut [u8]) {
    let length = i32::try_from(frame.len() - 4).expect("fuzzed frames are small");
    frame[..4].copy_from_slice(&length.to_be_bytes());
}

/// Takes bytes as a connection would: all the frames in them, each as its header says. Gives how
/// many bodies decoded.
pub(crate) fn enter(bytes: &[u8]) -> usize {
    let mut buffer = BytesMut::from(bytes);
    let mut splitter = FrameDecoder::new(FRAME_BYTES_MAX);
    let mut decoded = 0;
    while let Ok(Some(mut frame)) = splitter.decode(&mut buffer) {
        let Ok(head) = parse_head(&mut frame) else { continue };
        let found = DECODERS.iter().find(|decoder| decoder.key == head.api_key);
        // A version that the protocol knows and the wire crate does not is refused before decoding.
        let Some(decoder) = found else { continue };
        let versions = decoder.versions;
        if versions.min <= head.api_version && head.api_version <= versions.max {
            decoded += usize::from((decoder.decode)(frame, head.api_version).is_some());
        }
    }
    decoded
}
