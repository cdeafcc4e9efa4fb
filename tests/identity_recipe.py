"""docs/identity.md, carried out a second time: HMAC, SHA-256 and base32 from Python, and nothing of dicomveil.

Run as a program, it prints docs/identity-vectors.json.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

LABELS = {
    "fingerprint": "which key it is, for everybody to see",
    "uid": "a UID",
    "uid-distinct": "a UID that inputs of different content share",
    "uid-of-patient": "the Study Instance UID of one of several patients who share a study",
    "patient-id": "a Patient ID",
    "patient-of-study": "the Patient ID of a study that has none",
    "date-shift": "the days by which a patient's dates move",
    "accession": "an Accession Number kept as a pseudonym",
    "study-id": "a Study ID kept as a pseudonym",
    "uid-lossy": "a UID in a release that is compressed with loss",
    "uid-distinct-lossy": "likewise, where inputs of different content share one",
    "uid-of-patient-lossy": "likewise, of one of several patients who share a study",
    "successor": "a UID of modify, split or merge",
    "scope": "the token of a request of those",
    "described": "the token of what is said of a patient",
    "source": "the token of an input",
    "source-uri": "the token of an input in any version",
    "output-made": "the token of what an output in a store was made of and by",
    "sop": "the token of a SOP Instance UID, within a run",
    "study": "the token of a study",
    "uid-token": "the token of a UID",
    "word": "the token of a word that identifies",
    "study-map": "the token of what decides in a study's map",
    "issued": "the token of a Patient ID, where issuers are counted",
    "issuer": "the token of an issuer, where they are counted",
    "crosswalk-new": "a key for the digests of a crosswalk's new values",
    "generate-uid": "an identifier that a user asks for",
}
KEYS = {
    "counting": bytes(range(32)),
    "another": hashlib.sha256(b"another key").digest(),
    "longer": hashlib.sha512(b"a longer key").digest(),
}
UIDS = [
    "1.2.3",
    "1.2.840.113619.2.55.3.604688119.971.1202302934.237",
    "1.3.12.2.1107.5.1.4.54023.30000008020612345678900000001",
    "1.2.826.0.1.3680043.8.498.12345678901234567890123456789012345678",
    "2.25.329800735698586629295641978511506172918",
    "1.2.840.10008.1.4.1.1.99",
    "0",
    "00",
    "1.02.3",
    "1.2.3.",
    ".1.2.3",
    "1..3",
    "1.2.3 4",
    "1.2.abc",
    "1.2.ABC",
    "1." + "2" * 70,
    "1.2.é",
    "1.2.Ã©",
    "urn:oid:1.2.3",
]
REGISTERED = ["1.2.840.10008.1.4.1.1", "1.2.840.10008.1.5.1", "1.2.840.10008.1.2.1", "1.2.840.10008.15.1.1"]
ENCODED = [
    b"1.2.3\0",
    b"1.2.3 ",
    b" 1.2.3",
    b"  1.2.3 \0",
    b"1.2.3\\1.2.4",
    b"1.2.3\\\\1.2.3",
    b"1.2.3 \\ 1.2.3",
    b"1.2.840.10008.1.4.1.1\\1.2.3",
    b"1.2.\xe9\0",
    b"1.2\0.3",
]
PATIENTS = ["4711", "MRN 001", "mrn 001", "0815 ", "  0815", "Müller^1", "患者７", "0" * 12, "A" * 64, "UNKNOWN1"]
NOBODY = ["", "   ", "0", "UNKNOWN", "unknown", "N / A", "Anonymous", "?", "\0"]
ISSUERS = [("4711", "Hospital A"), ("4711", "Hospital B"), ("4711", "Klinik Süd"), ("4711", "")]
RANGES = [(30, 3650), (1, 1), (365, 36500)]
TEXTS = ["4711", "1.2.3", "4711 ", "Müller^1", "two words\nand a line"]
NUMBERS = ["20250001", "20250001 ", "A-77/3", "Ü1"]


def frame(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def purpose_key(secret: bytes, label: str) -> bytes:
    root = hmac.new(b"dicomveil 1", secret, hashlib.sha256).digest()
    return hmac.new(root, label.encode("ascii"), hashlib.sha256).digest()


def derive(secret: bytes, label: str, *parts: bytes) -> bytes:
    return hmac.new(purpose_key(secret, label), frame(*parts), hashlib.sha256).digest()


def uuid(digest: bytes) -> bytes:
    half = bytearray(digest[:16])
    half[6] = 0x80 | half[6] & 0x0F
    half[8] = 0x80 | half[8] & 0x3F
    return bytes(half)


def uuid_uid(digest: bytes) -> str:
    return "2.25." + str(int.from_bytes(uuid(digest), "big"))


def generated(secret: bytes, level: str, text: str, number: int) -> str:
    digest = derive(secret, "generate-uid", level.encode(), text.encode("utf-8"), str(number).encode())
    digits = uuid(digest).hex()
    groups = digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]
    return "-".join(groups) if level == "patient" else uuid_uid(digest)


def uid(secret: bytes, original: str) -> str:
    return original if original in REGISTERED else uuid_uid(derive(secret, "uid", original.encode("utf-8")))


def encoded(secret: bytes, value: bytes) -> bytes:
    """The element's value, to be padded with a NUL where its length is odd."""
    values = [one.strip(" \0") for one in value.decode("latin-1").split("\\")]
    return "\\".join(uid(secret, one) if one else "" for one in values).encode("ascii")


def short(digest: bytes) -> str:
    return base64.b32encode(digest[:10]).decode("ascii")


def patient(secret: bytes, patient_id: str, issuer: str = "") -> str:
    parts = [part.encode("utf-8") for part in (patient_id.strip(" \0"), issuer) if part]
    return "DV" + short(derive(secret, "patient-id", *parts))


def identity(patient_id: str, issuer: str = "") -> str:
    known = patient_id.strip(" \0")
    return f"{len(issuer)}:{issuer}{known}" if issuer else known


def days(secret: bytes, known: str, fewest: int, most: int) -> int:
    number = int.from_bytes(derive(secret, "date-shift", known.encode("utf-8")), "big")
    return -(fewest + number % (most - fewest + 1))


def number(secret: bytes, label: str, value: str) -> str:
    return short(derive(secret, label, value.strip(" \0").encode("utf-8")))


def _of_key(secret: bytes) -> Iterator[tuple[str, Any]]:
    study, content = b"1.2.3", hashlib.sha256(b"an instance").digest()
    yield "secret", secret.hex()
    yield "root", hmac.new(b"dicomveil 1", secret, hashlib.sha256).hexdigest()
    yield "fingerprint", derive(secret, "fingerprint").hex()[:16]
    yield "purpose_keys", {label: purpose_key(secret, label).hex() for label in LABELS}
    yield "derived", [
        {"label": label, "parts": [part.hex() for part in parts], "digest": derive(secret, label, *parts).hex()}
        for label, parts in {
            "uid": [b"1.2.3"], "source": [b"a", b"bc"], "sop": [b"abc"], "word": [b""], "fingerprint": [],
            "study": ["é".encode(), b"\0" * 300],
        }.items()
    ]  # fmt: skip
    yield "uids", [{"original": original, "new": uid(secret, original)} for original in UIDS + REGISTERED]
    yield "encoded_uids", [{"original": value.hex(), "new": encoded(secret, value).hex()} for value in ENCODED]
    yield (
        "distinct_uids",
        [
            {
                "original": "1.2.3",
                "content": content.hex(),
                "new": uuid_uid(derive(secret, "uid-distinct", study, content)),
            }
        ],
    )
    yield (
        "uids_of_patients",
        [
            {"original": "1.2.3", "identity": it, "new": uuid_uid(derive(secret, "uid-of-patient", study, it.encode()))}
            for it in ("4711", identity("4711", "Klinik Süd"))
        ],
    )
    lossy = b"1.2.840.10008.1.2.4.50 90"
    yield (
        "lossy_uids",
        [{"original": "1.2.3", "lossy": lossy.decode(), "new": uuid_uid(derive(secret, "uid-lossy", lossy, study))}],
    )
    yield "successors", [
        {
            "original": "1.2.3", "command": it, "scope": "00" * 16,
            "new": uuid_uid(derive(secret, "successor", it.encode(), b"00" * 16, study)),
        }
        for it in ("modify", "split", "merge")
    ]  # fmt: skip
    yield "patients", [{"patient_id": it, "new": patient(secret, it)} for it in PATIENTS]
    yield (
        "patients_with_issuer",
        [
            {"patient_id": it, "issuer": issuer, "identity": identity(it, issuer), "new": patient(secret, it, issuer)}
            for it, issuer in ISSUERS
        ],
    )
    yield (
        "patients_of_studies",
        [
            {"study_instance_uid": it, "new": "DV" + short(derive(secret, "patient-of-study", it.encode("utf-8")))}
            for it in UIDS[:3]
        ],
    )
    yield (
        "days",
        [
            {"identity": it, "fewest": fewest, "most": most, "days": days(secret, it, fewest, most)}
            for it in ("4711", identity("4711", "Klinik Süd"), "study 1.2.3", "Müller^1")
            for fewest, most in RANGES
        ],
    )
    yield (
        "generated",
        [
            {"level": level, "text": text, "number": number, "new": generated(secret, level, text, number)}
            for level in ("patient", "study", "series", "instance")
            for text in TEXTS
            for number in (1, 2)
        ],
    )
    yield (
        "numbers",
        [
            {"label": label, "original": it, "new": number(secret, label, it)}
            for label in ("accession", "study-id")
            for it in NUMBERS
        ],
    )


def vectors() -> dict[str, Any]:
    """All of it, as it is published."""
    return {
        "recipe": "dicomveil 1",
        "labels": LABELS,
        "frames": [
            {"parts": [part.hex() for part in parts], "framed": frame(*parts).hex()}
            for parts in ([], [b""], [b"ab", b"c"], [b"a", b"bc"], [b"abc"], ["é".encode()], [b"\0" * 300])
        ],
        "nobody": NOBODY,
        "keys": {name: dict(_of_key(secret)) for name, secret in KEYS.items()},
    }


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1, ensure_ascii=True))
