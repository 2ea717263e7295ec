//! A server on the loopback interface that answers what it is told: a whole file without Range requests, or given bytes.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// The longest head of a request that is read.
const REQUEST_LIMIT: usize = 16 << 10;
/// How long a client may take to send its request.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the next connections get.
enum Answers {
    /// This file, from its start, whatever is asked for.
    File(Arc<Vec<u8>>),
    /// Each connection the next of these, then nothing.
    Bytes(VecDeque<Vec<u8>>),
}

/// The server. One for a process; whoever holds it uses it alone.
pub(crate) struct Server {
    port: u16,
    answers: Arc<Mutex<Answers>>,
}

impl Server {
    /// The server of this process, for one caller at a time.
    pub(crate) fn claim() -> MutexGuard<'static, Server> {
        static SERVER: OnceLock<Mutex<Server>> = OnceLock::new();
        let start = || match Server::start() {
            Ok(server) => Mutex::new(server),
            Err(error) => panic!("no server on the loopback interface: {error}"),
        };
        SERVER.get_or_init(start).lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let answers = Arc::new(Mutex::new(Answers::Bytes(VecDeque::new())));
        let shared = Arc::clone(&answers);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // Whoever hangs up early is no concern of the server's.
                std::thread::spawn(move || drop(serve(connection, &shared)));
            }
        });
        Ok(Self { port, answers })
    }

    /// Its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Serves a file to whoever asks, and honours no Range request.
    pub(crate) fn serve_file(&self, file: &[u8]) {
        self.set(Answers::File(Arc::new(file.to_vec())));
    }

    /// Answers the next connections with these bytes, then with nothing.
    pub(crate) fn serve_bytes(&self, answers: impl IntoIterator<Item = Vec<u8>>) {
        self.set(Answers::Bytes(answers.into_iter().collect()));
    }

    fn set(&self, answers: Answers) {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner) = answers;
    }
}

fn serve(mut connection: TcpStream, answers: &Mutex<Answers>) -> io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut part = [0; 2048];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = connection.read(&mut part)?;
        if count == 0 || request.len() > REQUEST_LIMIT {
            return Ok(());
        }
        request.extend_from_slice(part.get(..count).unwrap_or_default());
    }
    let answer = match &mut *answers.lock().unwrap_or_else(PoisonError::into_inner) {
        Answers::File(file) => {
            let head =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", file.len());
            [head.as_bytes(), file].concat()
        }
        Answers::Bytes(answers) => answers.pop_front().unwrap_or_default(),
    };
    connection.write_all(&answer)
}
