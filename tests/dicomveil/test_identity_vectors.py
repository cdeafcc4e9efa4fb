"""The recipe of new identifiers, published for other languages: document, vectors and product agree, bit for bit."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest

from dicomveil import Deidentifier, standard
from dicomveil.dates import shift_days
from dicomveil.errors import KeyRefused
from dicomveil.keys import Keys, parse_key
from dicomveil.pseudonyms import (
    NUMBERS,
    Patient,
    known_patient_id,
    number_pseudonym,
    patient_pseudonym,
    study_pseudonym,
)
from dicomveil.testing import EXPLICIT, Syntax, minimal, part10
from dicomveil.uids import distinct_uid, generated, new_uid, successor_uid, uid_of_patient
from tests import identity_recipe

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "identity.md").read_text("utf-8")
VECTORS = json.loads((ROOT / "docs" / "identity-vectors.json").read_text("utf-8"))
E = Syntax(EXPLICIT)
SOP_INSTANCES = 0x00080058  # Failed SOP Instance UID List: several values


def rewritten(keys: Keys, value: bytes) -> bytes:
    """What becomes of a UI element of this value, its padding dropped."""
    secret = next(secret for secret in identity_recipe.KEYS.values() if Keys(secret).fingerprint == keys.fingerprint)
    padded = value + b"\0" * (len(value) % 2)
    data = part10(minimal(E, (SOP_INSTANCES, E.element(SOP_INSTANCES, "UI", padded))))
    out = Deidentifier(key=secret).rewrite(data)
    at = out.index(E.tag(SOP_INSTANCES))
    return out[at + 8 : at + 8 + int.from_bytes(out[at + 6 : at + 8], "little")].rstrip(b"\0")


Case = dict[str, Any]
PRODUCT: dict[str, Callable[[Keys, Case], Case]] = {
    "derived": lambda keys, it: {"digest": keys.derive(it["label"], *map(bytes.fromhex, it["parts"])).hex()},
    "uids": lambda keys, it: {"new": new_uid(keys, it["original"])},
    "encoded_uids": lambda keys, it: {"new": rewritten(keys, bytes.fromhex(it["original"])).hex()},
    "distinct_uids": lambda keys, it: {"new": distinct_uid(keys, it["original"], bytes.fromhex(it["content"]))},
    "lossy_uids": lambda keys, it: {"new": new_uid(keys, it["original"], it["lossy"])},
    "successors": lambda keys, it: {"new": successor_uid(keys, it["command"], it["scope"], it["original"])},
    "patients": lambda keys, it: {"new": patient_pseudonym(keys, it["patient_id"])},
    "patients_with_issuer": lambda keys, it: {
        "new": patient_pseudonym(keys, it["patient_id"], it["issuer"]),
        "identity": Patient(it["patient_id"], it["issuer"]).identity,
    },
    "uids_of_patients": lambda keys, it: {"new": uid_of_patient(keys, it["original"], it["identity"])},
    "patients_of_studies": lambda keys, it: {"new": study_pseudonym(keys, it["study_instance_uid"])},
    "days": lambda keys, it: {"days": shift_days(keys, it["identity"], (it["fewest"], it["most"]))},
    "generated": lambda keys, it: {"new": generated(keys, it["level"], it["text"], it["number"])},
    "numbers": lambda keys, it: {"new": number_pseudonym(keys, it["label"], it["original"])},
}
KEYS = {name: Keys(bytes.fromhex(content["secret"])) for name, content in VECTORS["keys"].items()}


@pytest.mark.parametrize("name", VECTORS["keys"])
@pytest.mark.parametrize("group", PRODUCT)
def test_the_product_gives_what_is_published(group: str, name: str) -> None:
    """For each published input, dicomveil gives the published output."""
    cases = VECTORS["keys"][name][group]
    assert cases
    for case in cases:
        assert case | PRODUCT[group](KEYS[name], case) == case


@pytest.mark.parametrize("name", VECTORS["keys"])
def test_the_product_derives_as_is_published(name: str) -> None:
    """Fingerprint and root are the published ones, and each label has the published key."""
    content, keys = VECTORS["keys"][name], KEYS[name]
    assert (keys.fingerprint, keys._root.hex()) == (content["fingerprint"], content["root"])
    for label, key in content["purpose_keys"].items():
        assert keys._begin(label).digest() == identity_recipe.hmac.digest(bytes.fromhex(key), b"", "sha256")


def test_what_is_published_is_the_recipe() -> None:
    """A second implementation, which knows the document alone, gives every published value."""
    assert json.loads(json.dumps(identity_recipe.vectors())) == VECTORS


def test_the_second_implementation_knows_nothing_of_the_first() -> None:
    """It imports nothing but Python's own modules, none of ours."""
    imported = re.findall(r"^(?:import|from) (\w+)", Path(identity_recipe.__file__).read_text(), re.MULTILINE)
    assert set(imported) == {"base64", "hashlib", "hmac", "json", "collections", "typing"}


def test_every_label_is_published() -> None:
    """Each label that the code derives under stands in the vectors and in the document's table, and no other does."""
    code = "\n".join(path.read_text() for name in ("dicomveil", "transforms") for path in (ROOT / name).rglob("*.py"))
    used = set(re.findall(r"""\b(?:derive|token)\(\s*"([a-z-]+)\"""", code)) | {label for _, label in NUMBERS.values()}
    table = [re.findall("`([a-z][a-z-]+)`", row) for row in re.findall(r"^\|([^|]+)\|", DOCUMENT, re.MULTILINE)]
    told = {label for labels in table for label in labels}
    assert used == told == set(VECTORS["labels"])


def test_nobody_is_no_identity() -> None:
    """What stands for an unknown Patient ID derives nothing."""
    for text in VECTORS["nobody"]:
        assert known_patient_id(text) == ""
        with pytest.raises(ValueError, match="no identity"):
            patient_pseudonym(KEYS["counting"], text)


def test_no_two_originals_share_a_new_value() -> None:
    """Under one key, different inputs have different outputs, malformed ones too; under two keys none is shared."""
    seen: dict[str, tuple[str, str]] = {}
    for name, content in VECTORS["keys"].items():
        for group in ("uids", "distinct_uids", "uids_of_patients", "patients_of_studies", "generated"):
            for case in content[group]:
                if case["new"] in standard.registered_uids():
                    continue
                inputs = json.dumps([group, {part: it for part, it in case.items() if part != "new"}])
                assert seen.setdefault(case["new"], (name, inputs)) == (name, inputs)


def test_the_documents_example_is_true() -> None:
    """The values that the document shows are those of the vectors."""
    counting = VECTORS["keys"]["counting"]
    shown = [counting["fingerprint"], counting["uids"][0]["new"], counting["patients"][0]["new"]]
    shown += [f"{counting['days'][0]['days']} days", counting["numbers"][0]["new"]]
    shown += [case["new"] for case in counting["generated"] if (case["text"], case["number"]) == ("4711", 1)][:2]
    assert [value for value in shown if value not in DOCUMENT] == []


def test_the_published_key_is_no_key() -> None:
    """The key of the vectors is everybody's, and refused where a user gives it."""
    with pytest.raises(KeyRefused):
        parse_key(VECTORS["keys"]["counting"]["secret"].encode())


def test_the_deidentifier_maps_as_is_published() -> None:
    """An instance that goes through the whole engine bears the published UIDs."""
    data = part10(minimal(E, (0x0020000D, E.element(0x0020000D, "UI", "1.2.3"))))
    out = Deidentifier(key=identity_recipe.KEYS["counting"]).rewrite(data)
    assert pydicom.dcmread(io.BytesIO(out)).StudyInstanceUID == VECTORS["keys"]["counting"]["uids"][0]["new"]
