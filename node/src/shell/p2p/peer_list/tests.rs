use super::*;

fn list(length: usize) -> Vec<Listed> {
    let addresses = [("8.8.8.8", 1), ("2600::1", 65_535), ("127.0.0.1", 29_333), ("::1", 2)];
    let addresses = addresses.map(|(ip, port)| (ip.parse().unwrap(), port));
    (0..length).map(|number| (PeerId::random(), addresses[..1 + number % ADDRESSES_MAX].to_vec())).collect()
}

#[test]
fn decode_of_encode_is_the_identity_up_to_the_bound() {
    for length in [0, 1, LIST_MAX] {
        let list = list(length);
        let bytes = encode(&list);
        assert!(bytes.len() <= LIST_BYTES_MAX);
        assert_eq!(decode(&bytes), Ok(list));
    }
    assert_eq!(decode(&encode(&list(LIST_MAX + 1))).unwrap().len(), LIST_MAX);
}

#[test]
fn other_bytes_are_no_list() {
    let good = encode(&list(3));
    for end in 0..good.len() {
        assert_eq!(decode(&good[..end]), Err(Malformed));
    }
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        decode(&bytes)
    };
    let name = usize::from(good[1]);
    // The number of peers, a name, the number of addresses, a family.
    for (at, bytes) in [(0, [2, 33, 255]), (1, [0, 65, 255]), (name + 2, [0, 5, 255]), (name + 3, [0, 5, 7])] {
        for byte in bytes {
            assert_eq!(changed(at, byte), Err(Malformed), "{byte} at {at}");
        }
    }
    assert_eq!(decode(&[good.as_slice(), &[0]].concat()), Err(Malformed));
}
