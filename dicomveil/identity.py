"""By which attributes of a study its people could be known in free text: names, numbers, addresses and dates.

Their values are gathered where text is to be cleaned (PS3.15 E.3.5), so that no word of them stays in it.
"""

from functools import cache
from typing import Final

from dicomveil import standard

_NUMBERS: Final = frozenset(
    """PatientID IssuerOfPatientID OtherPatientIDs MedicalRecordLocator PatientAddress PatientTelephoneNumbers
    PatientTelecomInformation CountryOfResidence RegionOfResidence MilitaryRank BranchOfService Occupation
    PatientReligiousPreference InsurancePlanIdentification AccessionNumber StudyID AdmissionID ServiceEpisodeID
    PlacerOrderNumberImagingServiceRequest FillerOrderNumberImagingServiceRequest RequestedProcedureID
    ScheduledProcedureStepID PerformedProcedureStepID ResponsibleOrganization ReferringPhysicianAddress
    ReferringPhysicianTelephoneNumbers PersonAddress PersonTelephoneNumbers OrderCallbackPhoneNumber InstitutionName
    InstitutionAddress InstitutionalDepartmentName StationName DeviceSerialNumber ClinicalTrialSubjectID
    ClinicalTrialSubjectReadingID ClinicalTrialSponsorName ClinicalTrialSiteName SpecimenIdentifier
    SpecimenAccessionNumber ContainerIdentifier ImageID RequestingService CurrentPatientLocation
    PatientInstitutionResidence TissueLocation CrewMember""".split()  # noqa: SIM905
)
_VRS: Final = frozenset(("PN", "DA", "DT"))


@cache
def identifying() -> dict[int, str]:
    """The VR of each attribute whose value may identify somebody of the study, by tag."""
    return {
        tag: element.vr
        for tag, element in standard.dictionary().items()
        if element.vr in _VRS or element.keyword in _NUMBERS
    }
