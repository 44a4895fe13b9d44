# A guest of two sectors that draws known pictures and tells what keyboard and mouse say. It talks on COM1:
#
#   in   t              text mode, 80 x 25 random characters
#        a b            800 x 600 and 1024 x 768, 16 bits a pixel (VBE modes 114h and 117h)
#        c d            the same with 32 bits (143h and 144h; of the standard VGA only)
#        f              another picture in the mode that is set
#        m              switches the PS/2 mouse on
#   out  ready          once, at the start
#        drawn          the picture is complete
#        failed         the mode is not there
#        k<hex> m<hex>  a byte from the keyboard, from the mouse
#
# Pictures are noise, a linear congruential sequence: no wrong, missing or moved pixel can look right.
.code16
.intel_syntax noprefix
.set com1, 0x3f8
.set modeInfo, 0x6000

boot:
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7c00
    cld
    mov ax, 0x0202          # int 13h: read two sectors, behind this one
    mov cx, 2
    xor dh, dh
    mov bx, 0x7e00
    int 0x13
    ljmp 0, offset main
    .org 510
    .byte 0x55, 0xaa

main:
    mov dx, com1 + 3        # 8n1, 115200
    mov al, 0x80
    out dx, al
    mov dx, com1
    mov al, 1
    out dx, al
    inc dx
    xor al, al
    out dx, al
    mov dx, com1 + 3
    mov al, 3
    out dx, al
    cli
    in al, 0x21             # keyboard and mouse are polled: the BIOS must not see them
    or al, 2
    out 0x21, al
    in al, 0xa1
    or al, 0x10
    out 0xa1, al
    mov al, 0x34            # a tick every 4 ms
    out 0x43, al
    mov al, 0xa4
    out 0x40, al
    mov al, 0x12
    out 0x40, al
    sti
    mov si, offset textReady
    call say

loop:
    hlt
poll:
    in al, 0x64
    test al, 1
    jz serial
    mov bl, 'k'
    test al, 0x20
    jz 1f
    mov bl, 'm'
1:  in al, 0x60
    call tell
    jmp poll
serial:
    mov dx, com1 + 5
    in al, dx
    test al, 1
    jz loop
    mov dx, com1
    in al, dx
    cmp al, 'f'
    je again
    cmp al, 'm'
    je mouse
    cmp al, 't'
    je text
    mov bx, 0x4114
    cmp al, 'a'
    je graphics
    mov bx, 0x4117
    cmp al, 'b'
    je graphics
    mov bx, 0x4143
    cmp al, 'c'
    je graphics
    mov bx, 0x4144
    cmp al, 'd'
    je graphics
    jmp loop

again:
    cmp dword ptr [size], 0
    jne fill
    jmp fillText
text:
    mov ax, 3
    int 0x10
    mov ah, 1               # no cursor, which would blink
    mov cx, 0x2000
    int 0x10
    mov dword ptr [size], 0
fillText:
    mov ax, 0xb800
    mov es, ax
    xor di, di
    mov cx, 2000
1:  call random
    shr eax, 16
    and ah, 0x7f            # no blinking either
    stosw
    loop 1b
    jmp drawn

graphics:
    push bx
    mov ax, 0x4f01
    mov cx, bx
    and cx, 0x1ff
    xor dx, dx
    mov es, dx
    mov di, modeInfo
    int 0x10
    pop bx
    cmp ax, 0x4f
    jne failed
    mov ax, 0x4f02
    int 0x10
    cmp ax, 0x4f
    jne failed
    movzx eax, word ptr [modeInfo + 16]     # bytes a line
    movzx ecx, word ptr [modeInfo + 20]     # lines
    mul ecx
    mov [size], eax
fill:
    cli                     # fs gets a limit of 4 GiB, the linear framebuffer is far up
    lgdt [descriptors]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov bx, 8
    mov fs, bx
    and al, 0xfe
    mov cr0, eax
    sti
    mov edi, [modeInfo + 40]
    mov ecx, [size]
    shr ecx, 2
1:  call random
    mov fs:[edi], eax
    add edi, 4
    dec ecx
    jnz 1b
drawn:
    mov si, offset textDrawn
    call say
    jmp loop
failed:
    mov si, offset textFailed
    call say
    jmp loop

mouse:
    mov bl, 0xa8            # the 8042: mouse port on, then "enable data reporting" to the mouse
    call command
    mov bl, 0xd4
    call command
    call writable
    mov al, 0xf4
    out 0x60, al
    jmp loop
command:
    call writable
    mov al, bl
    out 0x64, al
    ret
writable:
    in al, 0x64
    test al, 2
    jnz writable
    ret

random:                     # eax, a new one; Numerical Recipes' constants
    mov eax, [seed]
    imul eax, eax, 1664525
    add eax, 1013904223
    mov [seed], eax
    ret

tell:                       # bl, then al in hexadecimal, then a new line
    mov bh, al
    mov al, bl
    call put
    mov al, bh
    shr al, 4
    call digit
    mov al, bh
    and al, 15
    call digit
    mov al, '\n'
put:
    push ax
    mov dx, com1 + 5
1:  in al, dx
    test al, 0x20
    jz 1b
    pop ax
    mov dx, com1
    out dx, al
    ret
digit:
    cmp al, 10
    jb 1f
    add al, 'a' - '0' - 10
1:  add al, '0'
    jmp put
say:
    lodsb
    test al, al
    jz 1f
    call put
    jmp say
1:  ret

textReady:  .asciz "ready\n"
textDrawn:  .asciz "drawn\n"
textFailed: .asciz "failed\n"
    .balign 8
gdt:
    .quad 0, 0x00cf92000000ffff
descriptors:
    .word 15
    .long gdt
seed:
    .long 1
size:
    .long 0
    .org 1536
