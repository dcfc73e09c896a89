//! libpq's `sslmode`, on rustls.
//!
//! What each mode verifies follows PostgreSQL 15, "34.19. SSL Support", table 34.1, with one difference: `prefer` and
//! `allow` never verify, since both would fall back to plain text anyway. The provider is named explicitly; none is
//! installed for the process.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{self, CryptoProvider},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use thiserror::Error;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::conninfo::{Root, SslMode, TlsOptions};

/// A certificate or key file that cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// `verify-ca` and `verify-full` have nobody to trust.
    #[error(
        "sslmode asks for verification and {looked} is not there: name the CA's file in sslrootcert, or \
         sslrootcert=system for the system's roots"
    )]
    NoRoot {
        /// Where libpq's users keep it.
        looked: String,
    },
    /// A file cannot be read.
    #[error("cannot read {what} {}: {source}", path.display())]
    Unreadable {
        /// The keyword.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{what} {} {why}", path.display())]
    Unusable {
        /// The keyword.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The system has no roots.
    #[error("sslrootcert=system, but the system has no root certificates: install ca-certificates")]
    NoSystemRoots,
    /// rustls refuses the client's certificate.
    #[error("the client certificate and its key cannot be used: {0}")]
    Client(#[source] Error),
}

/// Makes the TLS side of connections.
///
/// # Errors
/// If a certificate or key is missing, unreadable or no such thing.
pub(super) fn connector(options: &TlsOptions) -> Result<MakeRustlsConnect, TlsError> {
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(Verifier { trust: trust(options)?, provider: Arc::clone(&provider) });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Client)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match client_certificate(options)? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(TlsError::Client)?,
        None => builder.with_no_client_auth(),
    };
    Ok(MakeRustlsConnect::new(config))
}

/// Whom to trust, and whether the name counts.
#[derive(Debug)]
enum Trust {
    /// Encrypt, whoever it is.
    Anybody,
    /// The chain must end in one of these.
    Chain { roots: RootCertStore, certificates: Vec<CertificateDer<'static>>, name: bool },
}

fn trust(options: &TlsOptions) -> Result<Trust, TlsError> {
    let default = options.directory.as_ref().map(|directory| directory.join("root.crt"));
    let root = match (&options.root, default) {
        (Some(root), _) => Some(root.clone()),
        (None, Some(path)) if path.exists() => Some(Root::File(path)),
        (None, looked) if options.mode >= SslMode::VerifyCa => {
            let usual = PathBuf::from("~/.postgresql/root.crt");
            return Err(TlsError::NoRoot { looked: looked.unwrap_or(usual).display().to_string() });
        }
        (None, _) => None,
    };
    // `require` verifies the chain as soon as there is a root, as `verify-ca` does.
    let root = root.filter(|_| options.mode >= SslMode::Require);
    let certificates = match root {
        None => return Ok(Trust::Anybody),
        Some(Root::File(path)) => certificates("sslrootcert", &path)?,
        Some(Root::System) => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    if roots.is_empty() && options.root == Some(Root::System) {
        return Err(TlsError::NoSystemRoots);
    }
    Ok(Trust::Chain { roots, certificates, name: options.mode == SslMode::VerifyFull })
}

/// `sslcert` and `sslkey`, or the files in `~/.postgresql` if both are there.
fn client_certificate(
    options: &TlsOptions,
) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, TlsError> {
    let usual = |name: &str| options.directory.as_ref().map(|directory| directory.join(name));
    let certificate = options.certificate.clone().or_else(|| usual("postgresql.crt").filter(|path| path.exists()));
    let key = options.key.clone().or_else(|| usual("postgresql.key"));
    let Some(certificate) = certificate else { return Ok(None) };
    let Some(key) = key else {
        let why = "needs its key: name it in sslkey".into();
        return Err(TlsError::Unusable { what: "sslcert", path: certificate, why });
    };
    private(&key)?;
    let chain = certificates("sslcert", &certificate)?;
    let key = PrivateKeyDer::from_pem_file(&key).map_err(|error| unusable("sslkey", &key, error))?;
    Ok(Some((chain, key)))
}

/// Refuses a key that others may read, as libpq does: 0600, or 0640 if it is root's.
fn private(key: &Path) -> Result<(), TlsError> {
    let metadata =
        fs::metadata(key).map_err(|source| TlsError::Unreadable { what: "sslkey", path: key.to_owned(), source })?;
    let forbidden = if metadata.uid() == 0 { 0o027 } else { 0o077 };
    if metadata.permissions().mode() & forbidden != 0 {
        let why = "may be read by others than its owner: chmod 0600 helps".into();
        return Err(TlsError::Unusable { what: "sslkey", path: key.to_owned(), why });
    }
    Ok(())
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(what, path, error))?;
    if certificates.is_empty() {
        let why = "holds no certificate in PEM form".into();
        return Err(TlsError::Unusable { what, path: path.to_owned(), why });
    }
    Ok(certificates)
}

fn unusable(what: &'static str, path: &Path, error: rustls::pki_types::pem::Error) -> TlsError {
    let path = path.to_owned();
    match error {
        rustls::pki_types::pem::Error::Io(source) => TlsError::Unreadable { what, path, source },
        other => TlsError::Unusable { what, path, why: format!("is not in PEM form: {other}") },
    }
}

/// Verifies as much as the mode asks for.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Trust::Chain { roots, certificates, name } = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let chain = verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms);
        // PostgreSQL's own recipe makes a self-signed certificate that is a CA's, which webpki takes for no server's.
        // Where that very certificate is trusted, only its dates are left to complain of.
        let itself_trusted = certificates.iter().any(|trusted| trusted == end_entity);
        match chain {
            Err(error) if !itself_trusted || is_about_dates(&error) => return Err(error),
            _ => {}
        }
        if *name {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.trust {
            // A signature by nobody knows whom proves nothing, and old certificates cannot even be parsed.
            Trust::Anybody => Ok(HandshakeSignatureValid::assertion()),
            Trust::Chain { .. } => {
                let algorithms = &self.provider.signature_verification_algorithms;
                crypto::verify_tls12_signature(message, certificate, signature, algorithms)
            }
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.trust {
            Trust::Anybody => Ok(HandshakeSignatureValid::assertion()),
            Trust::Chain { .. } => {
                let algorithms = &self.provider.signature_verification_algorithms;
                crypto::verify_tls13_signature(message, certificate, signature, algorithms)
            }
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn is_about_dates(error: &Error) -> bool {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(
        error,
        Error::InvalidCertificate(Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
    )
}
