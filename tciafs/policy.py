"""The Data Usage Policy of The Cancer Imaging Archive in few words of our own: text, no I/O.

The words of the archive's own page hold; these only say what it is about.
"""

from __future__ import annotations

LINK = "https://www.cancerimagingarchive.net/data-usage-policies-and-restrictions/"

GIST = f"""\
The images come from people. Whoever uses the archive agrees to its Data Usage Policy:
  - do not try to find out who the patients are, nor to get in touch with them;
  - keep to the licence of each collection, and cite its DOI wherever the data were used;
  - who passes access on names policy and sources, and requires the same of those who get it.
The policy's own words hold: {LINK}
"""

PASSING_ON = f"""\
Other users of this machine can read the drive: the Data Usage Policy holds for them, too.
Show it to them, and require it of them: {LINK}
"""

FILE = f"""\
DATA USAGE POLICY

This drive shows images of The Cancer Imaging Archive (TCIA), or of an archive that runs the same
software. TCIA's Data Usage Policy holds for whoever reads here. Its own words, which count:

    {LINK}

What it asks of whoever reads here, in short:

  - Do not use the data, alone or together with anything else, to find out who the patients are, or
    to get in touch with them. Do not make pictures of faces by which they could be recognized.
  - Keep to the licence. It is chosen for each series, and may forbid commercial use:
    LICENSE.txt in each collection's directory tells which there are.
  - Cite each collection by its DOI, and each analysis result by its own, in whatever you write or
    show: CITATION.txt and CITATION.bib in each collection's directory tell them.

What it asks of whoever passes access on (a drive that other users can read, a share, a mirror):

  - Name the source and the DOI of each collection that you give access to.
  - Link to the policy, and require it of everybody who gets access from you.
"""
