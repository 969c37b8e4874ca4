use bitcoin::hashes::Hash;
use proptest::prelude::*;

use super::*;

fn hash() -> impl Strategy<Value = BlockHash> {
    any::<[u8; 32]>().prop_map(BlockHash::from_byte_array)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        any::<u32>().prop_map(|height| Request::Status { height: Height(height) }),
        (any::<u32>(), 1..=ANSWER_BLOCKS_MAX).prop_map(|(from, count)| Request::Blocks { from: Height(from), count }),
        (any::<u32>(), hash()).prop_map(|(height, hash)| Request::Body { height: Height(height), hash }),
    ]
}

fn response() -> impl Strategy<Value = Response> {
    let block = (bytes(), bytes()).prop_map(|(certificate, block)| FinalBlock { certificate, block });
    prop_oneof![
        (any::<u32>(), hash()).prop_map(|(height, hash)| Response::Status { height: Height(height), hash }),
        proptest::collection::vec(block, 0..4).prop_map(Response::Blocks),
        proptest::option::of(bytes()).prop_map(Response::Body),
    ]
}

proptest! {
    #[test]
    fn a_request_reads_as_it_was_written(request in request()) {
        let bytes = request.encode();
        prop_assert!(bytes.len() <= REQUEST_BYTES_MAX);
        prop_assert_eq!(Request::decode(&bytes), Ok(request));
    }

    #[test]
    fn an_answer_reads_as_it_was_written(response in response()) {
        prop_assert_eq!(Response::decode(response.encode().into()), Ok(response));
    }

    #[test]
    fn there_is_one_encoding(bytes in bytes(), kind in 0u8..5) {
        let bytes = [&[kind][..], &bytes].concat();
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(request.encode(), bytes.clone());
        }
        if let Ok(response) = Response::decode(bytes.clone().into()) {
            prop_assert_eq!(response.encode(), bytes);
        }
    }

    #[test]
    fn a_message_cut_off_or_longer_is_none(request in request(), response in response(), cut in any::<prop::sample::Index>()) {
        let bytes = request.encode();
        prop_assert!(Request::decode(&bytes[..cut.index(bytes.len())]).is_err());
        prop_assert!(Request::decode(&[&bytes[..], &[0]].concat()).is_err());
        // A body ends where its message does.
        if !matches!(response, Response::Body(Some(_))) {
            let bytes = response.encode();
            prop_assert!(Response::decode(bytes[..cut.index(bytes.len())].to_vec().into()).is_err());
            prop_assert!(Response::decode([&bytes[..], &[0]].concat().into()).is_err());
        }
    }
}

#[test]
fn bounds_hold_before_memory_is_taken() {
    let count = [&[2][..], &1u32.to_le_bytes(), &(ANSWER_BLOCKS_MAX + 1).to_le_bytes()].concat();
    assert!(matches!(Request::decode(&count), Err(WireError::TooMany { .. })));
    let none = [&[2][..], &1u32.to_le_bytes(), &0u16.to_le_bytes()].concat();
    assert_eq!(Request::decode(&none), Err(WireError::None { what: "count of blocks" }));
    let certificate = [&[2][..], &1u16.to_le_bytes(), &u32::MAX.to_le_bytes()].concat();
    assert!(matches!(Response::decode(certificate.into()), Err(WireError::TooMany { .. })));
    let body = [&[3, 1][..], &vec![0; BLOCK_BYTES_MAX + 1]].concat();
    assert!(matches!(Response::decode(body.into()), Err(WireError::TooMany { .. })));
}

#[test]
fn gossip_frames() {
    let block = Bytes::from_static(b"block");
    assert_eq!(decode_body(encode_body(Height(7), &block)), Ok(BodyMessage::Pushed { height: Height(7), block }));
    assert_eq!(decode_body(Bytes::from_static(&[1, 2, 3])), Err(WireError::CutOff));
    assert_eq!(decode_body(Bytes::from_static(&[2, 2, 3])), Err(WireError::UnknownKind { got: 2 }));
    let long = encode_body(Height(7), &vec![0; PUSHED_BYTES_MAX + 1]);
    assert!(matches!(decode_body(long), Err(WireError::TooMany { .. })));
    let hash = BlockHash::from_byte_array([9; 32]);
    let announced = |bytes| decode_body(encode_announcement(Height(7), hash, bytes, 8));
    assert_eq!(announced(4_000_000), Ok(BodyMessage::Announced { height: Height(7), hash, bytes: 4_000_000 }));
    assert!(matches!(announced(4_000_001), Err(WireError::TooMany { .. })));
    assert!(matches!(announced(0), Err(WireError::None { .. })));
    let trailing = [&encode_announcement(Height(7), hash, 1, 8)[..], &[0]].concat();
    assert_eq!(decode_body(trailing.into()), Err(WireError::Trailing { bytes: 1 }));
    assert_eq!(decode_consensus(b"12345678rest"), Ok(&b"rest"[..]));
    assert_eq!(decode_consensus(b"1234567"), Err(WireError::CutOff));
}

proptest! {
    #[test]
    fn transactions_read_as_they_were_written(list in proptest::collection::vec(bytes(), 1..20), cut in 0usize..5) {
        let message = encode_transactions(&list, 7);
        prop_assert_eq!(decode_transactions(message.clone()), Ok(list));
        prop_assume!(cut != 1);
        prop_assert_eq!(decode_transactions(message.slice(..7 + cut)), Err(WireError::CutOff));
    }
}

#[test]
fn a_message_has_one_transaction_to_the_limit() {
    assert_eq!(
        decode_transactions(encode_transactions(&[], 1)),
        Err(WireError::None { what: "count of transactions" })
    );
    let list = |count: usize| encode_transactions(&vec![Bytes::from_static(b"tx"); count], 1);
    assert!(decode_transactions(list(TRANSACTIONS_MAX)).is_ok());
    assert!(matches!(decode_transactions(list(TRANSACTIONS_MAX + 1)), Err(WireError::TooMany { .. })));
}
