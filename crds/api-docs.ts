export const apiDocs = () => ''
