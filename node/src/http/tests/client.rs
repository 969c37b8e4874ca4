//! A client that does what no good one does.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};

use super::PATIENCE;

pub(super) struct Client {
    stream: BufReader<TcpStream>,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The one value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|it| it.0 == name).map(|it| it.1.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name}");
        value
    }
}

impl Client {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    /// One at another address of this machine.
    pub(super) async fn from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        let stream = socket.connect(address).await.unwrap().into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        Self::over(stream)
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// The same connection, to send on.
    pub(super) fn second(&self) -> Self {
        Self::over(self.stream.get_ref().try_clone().unwrap())
    }

    /// Sends as much as the server takes.
    pub(super) fn send(&mut self, bytes: &str) {
        let _ = self.try_send(bytes);
    }

    pub(super) fn try_send(&mut self, bytes: &str) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_bytes())
    }

    pub(super) fn finish(&self) {
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
    }

    pub(super) fn get(&mut self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }

    /// Whether the server serves this connection.
    pub(super) fn is_served(&mut self) -> bool {
        self.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        // It may be closed without a word.
        self.read(true).is_ok_and(|answer| answer.status == 200)
    }

    pub(super) fn ask(&mut self, method: &str, path: &str, headers: &str) -> Answer {
        self.send(&format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"));
        self.read(method != "HEAD").unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub(super) fn answer(&mut self) -> Answer {
        self.read(true).unwrap()
    }

    pub(super) fn read(&mut self, has_body: bool) -> std::io::Result<Answer> {
        let status = self.line()?;
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut answer = Answer { status: code.unwrap_or_else(|| panic!("{status:?}")), headers, body: Vec::new() };
        let length = answer.header("content-length").map(|length| length.parse().unwrap());
        match length {
            _ if !has_body => {}
            Some(length) => {
                answer.body = vec![0; length];
                self.stream.read_exact(&mut answer.body)?;
            }
            None => {
                assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
                loop {
                    let length = usize::from_str_radix(&self.line()?, 16).unwrap();
                    let start = answer.body.len();
                    answer.body.resize(start + length, 0);
                    self.stream.read_exact(&mut answer.body[start..])?;
                    self.line()?;
                    if length == 0 {
                        break;
                    }
                }
            }
        }
        Ok(answer)
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Waits for the end of the connection; false if anything else comes, or nothing.
    pub(super) fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
        }
    }
}
