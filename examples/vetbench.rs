use gossipmonger::{protocol::seal::*, tls::*, *};
use std::time::*;
fn main() {
    let a =
        Authority::create(ClusterId::new("demo").unwrap(), &AuthorityOptions::default()).unwrap();
    let mk = |n: &str| {
        let i = a
            .issue(
                NodeId::new(n).unwrap(),
                Datacenter::new("eu").unwrap(),
                Duration::from_secs(9999),
            )
            .unwrap();
        Tls::new(
            Identity::from_pem(i.certificate_pem.as_bytes(), i.key_pem.as_bytes()).unwrap(),
            Roots::from_pem(a.certificate_pem().as_bytes()).unwrap(),
        )
        .unwrap()
    };
    let (x, y) = (mk("x"), mk("y"));
    let n = NodeId::new("x").unwrap();
    let (s, c) = x.begin(&n, Generation(7)).unwrap();
    let t = |what: &str, f: &mut dyn FnMut()| {
        let b = Instant::now();
        for _ in 0..2000 {
            f()
        }
        println!("{what} {:.1} us", b.elapsed().as_secs_f64() * 1e6 / 2000.0)
    };
    t("vet", &mut || y.vet(&n, Generation(7), &c).unwrap());
    let h = protocol::tree::Hash([1; 32]);
    let sig = s.sign(&h).unwrap();
    let k = s.key();
    t("verify", &mut || assert!(k.verifies(&h, &sig)));
    t("sign", &mut || {
        s.sign(&h);
    });
    let der = rustls_pki_types::CertificateDer::from(c.chain[0].clone());
    t("summary", &mut || {
        CertificateSummary::from_certificate(&der).unwrap();
    });
    t("name", &mut || {
        PeerName::from_certificate(&der).unwrap();
    });
}
