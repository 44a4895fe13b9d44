# The devices that libxl asks for, for a guest of the machine type xenfv; nothing is on by default.
# Chosen by what tools/libs/light/libxl_dm.c puts on QEMU's command line.
CONFIG_I440FX=y

# hdtype=, disks, CDs
CONFIG_AHCI_ICH9=y
CONFIG_LSI_SCSI_PCI=y

# nics, model=e1000 and model=rtl8139
CONFIG_E1000_PCI=y
CONFIG_RTL8139_PCI=y

# vga="stdvga" and vga="cirrus"
CONFIG_VGA_PCI=y
CONFIG_VGA_CIRRUS=y

# usb, usbversion=1|2|3, usbdevice=
CONFIG_USB_UHCI=y
CONFIG_USB_EHCI_PCI=y
CONFIG_USB_XHCI_PCI=y
CONFIG_USB_XHCI_NEC=y
CONFIG_USB_HUB=y
CONFIG_USB_HID=y
CONFIG_USB_STORAGE_BOT=y
CONFIG_USB_STORAGE_CLASSIC=y

# soundhw=
CONFIG_AC97=y
CONFIG_ES1370=y
CONFIG_HDA=y
CONFIG_SB16=y

CONFIG_SERIAL_ISA=y
CONFIG_XEN_IGD_PASSTHROUGH=y
