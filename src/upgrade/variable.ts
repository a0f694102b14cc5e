/** Names the descriptor of a pair of sockets to a process that is started to take over a disk. */
export const TAKEOVER_VARIABLE = "UBIBLK_UPGRADE_FD";
