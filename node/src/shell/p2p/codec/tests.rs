use bitcoin::hashes::Hash;
use causeway_chainspec::Height;
use futures::io::Cursor;
use libp2p::request_response::Codec as _;

use super::*;

fn name() -> StreamProtocol {
    StreamProtocol::new("/test")
}

async fn request(bytes: Vec<u8>) -> io::Result<Option<Request>> {
    Codec.read_request(&name(), &mut Cursor::new(bytes)).await
}

async fn response(bytes: Vec<u8>) -> io::Result<Response> {
    Codec.read_response(&name(), &mut Cursor::new(bytes)).await
}

#[tokio::test]
async fn what_is_written_is_read() {
    let asked = Request::Body { height: Height(7), hash: bitcoin::BlockHash::from_byte_array([1; 32]) };
    let mut stream = Cursor::new(Vec::new());
    Codec.write_request(&name(), &mut stream, Some(asked)).await.unwrap();
    assert_eq!(request(stream.into_inner()).await.unwrap(), Some(asked));
    let answer = Response::Body(Some(vec![1, 2, 3].into()));
    let mut stream = Cursor::new(Vec::new());
    Codec.write_response(&name(), &mut stream, answer.clone()).await.unwrap();
    assert_eq!(response(stream.into_inner()).await.unwrap(), answer);
}

#[tokio::test]
async fn too_much_is_invalid_and_nothing_is_an_early_end() {
    for length in [REQUEST_BYTES_MAX + 1, 1 << 20] {
        assert_eq!(request(vec![1; length]).await.unwrap(), None);
    }
    assert_eq!(response(vec![1; RESPONSE_BYTES_MAX + 1]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(response(vec![9]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(request(Vec::new()).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(response(Vec::new()).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn no_more_is_read_than_the_bound() {
    let mut stream = Cursor::new(vec![1; 1 << 20]);
    assert_eq!(Codec.read_request(&name(), &mut stream).await.unwrap(), None);
    assert_eq!(stream.position(), u64::try_from(REQUEST_BYTES_MAX).unwrap() + 1);
}
