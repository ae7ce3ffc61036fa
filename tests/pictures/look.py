"""How the desktop looks in the pictures: files of settings by their path in its home."""

from __future__ import annotations

from pathlib import Path

_GTK = """[Settings]
gtk-theme-name=Adwaita
gtk-icon-theme-name=Papirus
gtk-font-name=DejaVu Sans 10
"""
_GTK2 = """gtk-theme-name="Adwaita"
gtk-icon-theme-name="Papirus"
gtk-font-name="DejaVu Sans 10"
"""
_OPENBOX = """<?xml version="1.0"?>
<openbox_config xmlns="http://openbox.org/3.4/rc">
  <theme><name>Onyx</name><titleLayout>LIMC</titleLayout></theme>
  <applications><application class="*"><maximized>yes</maximized></application></applications>
</openbox_config>
"""
_PCMANFM = """[ui]
side_pane_mode=hidden;places
pathbar_mode_buttons=1
show_statusbar=1
view_mode=list
columns=name:400;size:120;desc:240;mtime;
"""
_THUNAR = """<?xml version="1.0"?>
<channel name="thunar" version="1.0">
  <property name="last-location-bar" type="string" value="ThunarLocationButtons"/>
  <property name="last-side-pane" type="string" value="ThunarTreePane"/>
  <property name="last-separator-position" type="int" value="300"/>
  <property name="last-menubar-visible" type="bool" value="false"/>
</channel>
"""
_FILES = {
    ".config/gtk-3.0/settings.ini": _GTK,
    ".gtkrc-2.0": _GTK2,
    ".config/openbox/rc.xml": _OPENBOX,
    ".config/pcmanfm/default/pcmanfm.conf": _PCMANFM,
    ".config/xfce4/xfconf/xfce-perchannel-xml/thunar.xml": _THUNAR,
}


def furnish(home: Path) -> None:
    """Write the settings into a home."""
    for name, text in _FILES.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
