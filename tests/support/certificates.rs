//! Certificates for a server and its clients, made for one test by `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// An authority, a certificate for `localhost`, one for a client named `postgres`, and an authority that signed neither.
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    pub fn make(folder: &Path) -> Certificates {
        std::fs::create_dir(folder).expect("a folder for certificates");
        let made = Certificates { folder: folder.to_owned() };
        made.authority("ca");
        made.authority("stranger");
        made.signed("server", "/CN=localhost", "subjectAltName=DNS:localhost");
        made.signed("client", "/CN=postgres", "keyUsage=digitalSignature");
        made
    }

    /// The authority that signed the others.
    pub fn ca(&self) -> PathBuf {
        self.file("ca.crt")
    }
    /// An authority that signed none of them.
    pub fn stranger(&self) -> PathBuf {
        self.file("stranger.crt")
    }
    /// A client's certificate and key.
    pub fn client(&self) -> (PathBuf, PathBuf) {
        (self.file("client.crt"), self.file("client.key"))
    }

    /// The same key, behind this password.
    pub fn locked_key(&self, password: &str) -> PathBuf {
        let pass = format!("pass:{password}");
        self.openssl(&["pkey", "-in", "client.key", "-aes256", "-passout", &pass, "-out", "locked.key"]);
        self.file("locked.key")
    }
    /// The server's key and certificate in one file, as Java wants them.
    pub fn server_pem(&self) -> PathBuf {
        let read = |name: &str| std::fs::read_to_string(self.file(name)).expect("it was made");
        std::fs::write(self.file("server.pem"), read("server.key") + &read("server.crt")).expect("the folder can be written");
        self.file("server.pem")
    }

    /// Names of the server's settings, and the files that they name.
    pub fn server_settings(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("ssl_cert_file", self.file("server.crt")),
            ("ssl_key_file", self.file("server.key")),
            ("ssl_ca_file", self.ca()),
        ]
    }

    /// What the server's user must own.
    pub fn for_the_server(&self) -> impl Iterator<Item = PathBuf> {
        ["server.crt", "server.key"].map(|name| self.file(name)).into_iter()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn authority(&self, name: &str) {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
        let arguments = [
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ];
        self.openssl(
            &[
                &arguments[..],
                &["-subj", &format!("/CN={name}"), "-keyout", &key, "-out", &certificate],
            ]
            .concat(),
        );
    }

    fn signed(&self, name: &str, subject: &str, extension: &str) {
        let [key, request, certificate, extensions] = ["key", "csr", "crt", "ext"].map(|ending| format!("{name}.{ending}"));
        let arguments = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        self.openssl(&[&arguments[..], &["-subj", subject, "-keyout", &key, "-out", &request]].concat());
        std::fs::write(self.file(&extensions), format!("{extension}\n")).expect("the folder can be written");
        let arguments = ["x509", "-req", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"];
        self.openssl(&[&arguments[..], &["-in", &request, "-out", &certificate, "-extfile", &extensions]].concat());
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(&self.folder).output();
        let output = output.expect("openssl: install what Debian calls openssl");
        assert!(
            output.status.success(),
            "openssl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
