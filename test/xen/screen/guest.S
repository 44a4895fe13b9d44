# A guest of three sectors that draws known pictures and tells what keyboard and mouse say. It talks on COM1:
#
#   in   t              text mode, 80 x 25 random characters
#        a b            800 x 600 and 1024 x 768, 16 bits a pixel (VBE modes 114h and 117h)
#        c d            the same with 32 bits (143h and 144h; of the standard VGA only)
#        h i            1280 x 800 and 1920 x 1080 with 32 bits (17Ah and 192h; likewise)
#        f              another picture in the mode that is set
#        p              a picture for people, in the mode that is set
#        g              sixty pictures of one colour each second, until anything is typed; not in text mode
#        m              switches the PS/2 mouse on
#        w              the same for a mouse with a wheel, whose packets have four bytes
#   out  ready          once, at the start
#        drawn          the picture is complete
#        failed         the mode is not there
#        k<hex> m<hex>  a byte from the keyboard, from the mouse
#   key  F5             one picture of g: a change on the screen that a viewer alone can bring about
#
# Pictures are noise, a linear congruential sequence: no wrong, missing or moved pixel can look right.
#
# Each access to a port and each interrupt is costly on an emulated host: the guest sleeps until something comes. What keyboard
# and mouse say is taken at once, between the bytes of what it says itself: QEMU keeps 16 bytes, and drops the rest.
.code16
.intel_syntax noprefix
.set com1, 0x3f8
.set modeInfo, 0x6000
.set buffer, 0x9000
.set queue, 0x5000              # 256 words: a byte and whose it is

boot:
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7c00
    cld
    mov ax, 0x0203          # int 13h: read three sectors, behind this one
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
    inc dx                  # OUT2 lets its interrupt out
    mov al, 11
    out dx, al
    cli
    mov word ptr [4 * 0x08], offset interrupt
    mov word ptr [4 * 0x09], offset interrupt
    mov word ptr [4 * 0x0c], offset interrupt
    mov word ptr [4 * 0x74], offset interrupt2
    xor ax, ax
    mov [4 * 0x08 + 2], ax
    mov [4 * 0x09 + 2], ax
    mov [4 * 0x0c + 2], ax
    mov [4 * 0x74 + 2], ax
    in al, 0x21             # timer, keyboard, second controller, COM1; there the mouse
    and al, 0xe8
    out 0x21, al
    in al, 0xa1
    and al, 0xef
    out 0xa1, al
    mov dx, com1 + 1        # interrupt when something is received
    mov al, 1
    out dx, al
    mov si, offset textReady
    call say

loop:
    sti                     # takes effect after the instruction behind it: nothing can come in between
    hlt
poll:
    cli
    call take
    movzx bx, byte ptr [taken]
    cmp bl, [came]
    je serial
    inc byte ptr [taken]
    shl bx, 1
    mov ax, [bx + queue]
    mov bl, ah
    push ax
    call tell
    pop ax
    cmp bl, 'm'
    je poll
    cmp al, 0x3f            # F5
    jne poll
    cmp dword ptr [size], 0
    je poll
    call plain
    jmp drawn
serial:
    mov dx, com1 + 5
    in al, dx
    test al, 1
    jz loop
    mov dx, com1
    in al, dx
    cmp al, 'f'
    je again
    cmp al, 'p'
    je picture
    cmp al, 'g'
    je go
    cmp al, 'm'
    je mouse
    cmp al, 'w'
    je wheel
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
    mov bx, 0x417a
    cmp al, 'h'
    je graphics
    mov bx, 0x4192
    cmp al, 'i'
    je graphics
    jmp poll

take:                       # what the 8042 has, into the queue
    in al, 0x64
    test al, 1
    jz 1f
    mov ah, 'k'
    test al, 0x20
    jz 2f
    mov ah, 'm'
2:  in al, 0x60
    movzx di, byte ptr [came]
    inc byte ptr [came]
    shl di, 1
    mov [di + queue], ax
    jmp take
1:  ret

interrupt2:
    push ax
    mov al, 0x20
    out 0xa0, al
    jmp 1f
interrupt:
    push ax
    mov al, 0x20
1:  out 0x20, al
    pop ax
    iret

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
    xor ax, ax
    mov es, ax
    mov di, buffer
    mov cx, 2000
1:  call random
    shr eax, 16
    and ah, 0x7f            # no blinking either
    stosw
    loop 1b
showText:                   # in one instruction: each access on its own would go to QEMU on its own
    mov ax, 0xb800
    mov es, ax
    mov si, buffer
    xor di, di
    mov cx, 1000
    rep movsd
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
    call reach
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

picture:
    cmp dword ptr [size], 0
    jne 2f
    xor ax, ax              # text: every character, in colours that change from line to line
    mov es, ax
    mov di, buffer
    xor cx, cx
1:  mov ax, cx
    shr ax, 4
    mov ah, al
    and ah, 0x7f
    mov al, cl
    stosw
    inc cx
    cmp cx, 2000
    jne 1b
    jmp showText
2:  call reach
    xor edx, edx            # line
3:  xor ecx, ecx            # column
4:  mov eax, ecx
    xor eax, edx            # 32 bits: red from left to right, green downwards, blue a pattern of squares
    cmp byte ptr [modeInfo + 25], 32
    jne 5f
    movzx eax, al
    mov ebx, ecx
    shr ebx, 2
    shl ebx, 16
    or eax, ebx
    mov ebx, edx
    shr ebx, 2
    shl ebx, 8
    or eax, ebx
    mov fs:[edi], eax
    add edi, 4
    jmp 6f
5:  and ax, 31              # the same in 5, 6 and 5 bits
    mov ebx, ecx
    shr ebx, 5
    shl ebx, 11
    or eax, ebx
    mov ebx, edx
    shr ebx, 4
    shl ebx, 5
    or eax, ebx
    mov fs:[edi], ax
    add edi, 2
6:  inc ecx
    cmp cx, [modeInfo + 18]
    jb 4b
    inc edx
    cmp dx, [modeInfo + 20]
    jb 3b
    jmp drawn

go:
    mov ax, 19886           # 1193182 / 60
    call tick
1:  call plain
    sti
    hlt
    cli
    mov dx, com1 + 5
    in al, dx
    test al, 1
    jz 1b
    mov dx, com1
    in al, dx
    xor ax, ax              # 18.2 a second again
    call tick
    jmp drawn
plain:
    call reach
    xor ax, ax
    mov es, ax
    mov ecx, [size]
    shr ecx, 2
    mov eax, [colour]
    add eax, 0x00030507
    and eax, 0x00ffffff
    mov [colour], eax
    addr32 rep stosd
    ret
tick:
    push ax
    mov al, 0x34
    out 0x43, al
    pop ax
    out 0x40, al
    mov al, ah
    out 0x40, al
    ret

reach:                      # fs and es get a limit of 4 GiB, the linear framebuffer is far up; edi: where
    lgdt [descriptors]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov bx, 8
    mov fs, bx
    mov es, bx
    and al, 0xfe
    mov cr0, eax
    xor bx, bx
    mov fs, bx
    mov edi, [modeInfo + 40]
    ret

wheel:                      # three rates in this order make it a mouse with a wheel
    call enable
    mov si, offset rates
1:  lodsb
    mov bh, al
    call toMouse
    cmp si, offset ratesEnd
    jne 1b
    mov bh, 0xf4            # "enable data reporting"
    call toMouse
    jmp poll
mouse:
    call enable
    mov bh, 0xf4
    call toMouse
    jmp poll
enable:                     # the 8042: mouse port on, and both interrupts, set 1
    mov bl, 0xa8
    call command
    mov bl, 0x60
    call command
    call writable
    mov al, 0x47
    out 0x60, al
    ret
toMouse:
    mov bl, 0xd4
    call command
    call writable
    mov al, bh
    out 0x60, al
    ret
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
    push di
    call take
    pop di
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
came: .byte 0               # where in the queue the next goes, and from where it is taken
taken:
    .byte 0
seed:
    .long 1
size:
    .long 0
colour:
    .long 0
rates:
    .byte 0xf3, 200, 0xf3, 100, 0xf3, 80
ratesEnd:
    .org 2048
